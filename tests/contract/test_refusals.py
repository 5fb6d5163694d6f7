"""What a call is refused for before anything is started, and which refusal comes first."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.test_jobs import ended
from tests.contract.wire import FLOWS, detail, execute, http_for, refusal, set_budget, trace_of
from tests.servers import server_with

CALLS = ["execute", "v1/execute", "jobs", "v1/jobs", "v1/step"]

ASKING = """
slug: asking
steps:
  - {id: ask, type: llm, model: echo, prompt: "hi", settings: {temperature: 0.1}}
  - {id: work, type: code, code: "return {}"}
  - {id: last, type: condition, if: "False", then: [{id: never, type: llm, model: "anthropic:m", prompt: x}]}
"""

NEEDY = """
slug: needy
inputs:
  type: object
  properties:
    message: {type: string, minLength: 1}
    topic: {enum: [spelling, grammar]}
    pages: {type: array, items: {type: object, properties: {n: {type: integer}}, required: [n]}}
  required: [message, topic]
steps: [{id: keep, type: passthrough}]
"""

LOST = 'slug: lost\nsteps: [{id: ask, type: llm, model: "nonsense:m", prompt: hi}]\n'

KEYLESS = """
slug: keyless
steps:
  - {id: first, type: passthrough}
  - id: both
    type: parallel
    branches: {a: [{id: ask, type: llm, model: "openai:m", prompt: x}]}
"""

NOT_ALWAYS = """
slug: not-always
steps:
  - {id: some, type: loop, over: "[]", steps: [{id: each, type: llm, model: "openai:m", prompt: x}]}
  - {id: spare, type: llm, model: "openai:m", prompt: x, on_error: continue}
  - id: last
    type: condition
    if: initial.get("ask", False)
    then: [{id: seldom, type: llm, model: "openai:m", prompt: x}]
"""


server = server_with(*FLOWS, ASKING, NEEDY, LOST, KEYLESS, NOT_ALWAYS, body_limit_bytes=2_000_000)


@pytest.fixture(scope="module")
def poor(server: RunningServer) -> Iterator[httpx2.Client]:
    """A caller whose project has nothing left to spend."""
    for flow in (ASKING, NEEDY, LOST):
        server.push(flow, org="acme", project="poor")
    set_budget(server, "0", project="poor")
    with http_for(server, server.make_key("acme", "poor")) as http:
        yield http


OVERRIDES: dict[str, dict[str, Any]] = {
    "ask.settings.temprature`": {"ask": {"settings": {"temprature": 1}}},
    "ask.settings.temprature`: unknown": {"ask": {"settings.temprature": 0}},
    "ask.promt`: unknown field 'promt'; did you mean 'prompt'?": {"ask": {"promt": "x"}},
    f'ask["{"x" * 100}…"]`: unknown field \'{"x" * 56}…': {"ask": {"x" * 5000: 1}},
    "x4`: the flow has no step 'x4'; and 6 more steps that it does not have": {
        f"x{n}": {} for n in range(11)
    },
    "asks`: the flow has no step 'asks'; did you mean 'ask'?": {"asks": {}},
    "last`: only steps that do work can be changed, not one that holds steps": {"last": {"if": "x"}},
    "ask.prompt`: the template is malformed: unexpected end of input, expected expression; "
    "`blockOverrides.work.code`: the code is not valid Python: '(' was never closed": {
        "ask": {"prompt": "a\n{{"},
        "work": {"code": "return ("},
    },
    "ask.output_schema.type`: the schema must allow objects": {"ask": {"output_schema": {"type": "array"}}},
}
"""What is said of each, behind `blockOverrides.`."""
REFUSED: list[tuple[str, dict[str, Any], tuple[int, str], str]] = [
    ("needy", {}, (400, "MISSING_MESSAGE"), "`message`"),
    ("needy", {"message": None}, (400, "MISSING_MESSAGE"), "`message`"),
    ("needy", {"messages": []}, (400, "MISSING_MESSAGE"), "`message`"),
    ("needy", {"parameters": {"topic": "a"}}, (400, "MISSING_MESSAGE"), "`message`"),
    (
        "needy",
        {"message": "", "parameters": {"topic": "speling", "pages": [{"n": 1}, {"n": "2"}, {}]}},
        (422, "INVALID_REQUEST"),
        "`parameters.topic`: expected spelling or grammar, found 'speling'; did you mean 'spelling'?; "
        "`parameters.pages[1].n`: expected an integer, found '2'; `parameters.pages[2].n` is missing; "
        "`message`: must not be empty",
    ),
    ("words", {"mesage": "a"}, (422, "INVALID_REQUEST"), "`mesage`"),
    ("words", {"parameters": {"attachments": []}}, (400, "PARAMETER_NAME_RESERVED"), "attachments"),
    ("lost", {}, (400, "MODEL_NOT_SUPPORTED"), "'nonsense:m'"),
    *(
        ("asking", {"blockOverrides": {"ask": {"model": model}}}, (400, "MODEL_NOT_SUPPORTED"), repr(model))
        for model in ("nonsense:x", "gateway/nonsense:x")
    ),
    *(
        # By the rule for files: a server that looks for the provider says so otherwise.
        (
            "asking",
            {"blockOverrides": {"ask": {"model": model}}},
            (400, "MODEL_NOT_SUPPORTED"),
            f"`blockOverrides.ask.model`: model {model!r} names no provider: write PROVIDER:MODEL, or `echo`",
        )
        for model in ("no-provider", "Echo", "openai:", ":m", "test")
    ),
    *(
        ("asking", {"blockOverrides": overrides}, (422, "INVALID_REQUEST"), f"`blockOverrides.{told}")
        for told, overrides in OVERRIDES.items()
    ),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("slug", "body", "refused", "told"), REFUSED)
def test_what_cannot_be_run_is_refused_with_its_place_and_starts_nothing(
    http: httpx2.Client, call: str, slug: str, body: dict[str, Any], refused: tuple[int, str], told: str
) -> None:
    before = http.get("/flow-runs").json()
    answer = http.post(f"/seq/acme/demo/{slug}/{call}", json=body)
    assert refusal(answer, told) == refused
    assert refused[1] != "MODEL_NOT_SUPPORTED" or detail(answer)["stepId"] == "ask"
    assert http.get("/flow-runs").json() == before


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize("call", ["execute", "v1/execute", "v1/step"])
def test_a_flow_whose_provider_has_no_key_starts_nothing(http: httpx2.Client, call: str) -> None:
    before = http.get("/flow-runs").json()
    answer = http.post(f"/seq/acme/demo/keyless/{call}", json={})
    assert refusal(answer, "'openai': set OPENAI_API_KEY") == (400, "PROVIDER_KEY_MISSING")
    assert detail(answer)["stepId"] == "ask"
    assert http.get("/flow-runs").json() == before
    execute(http, "keyless", blockOverrides={"ask": {"model": "echo"}})


@pytest.mark.usefixtures("no_key")
def test_a_job_whose_provider_has_no_key_fails_before_its_first_step(http: httpx2.Client) -> None:
    run = http.post("/seq/acme/demo/keyless/jobs", json={}).json()["executionId"]
    state = ended(http, run, "keyless")
    assert state["status"] == "failed"
    assert "OPENAI_API_KEY" in state["error"]
    assert "PROVIDER_KEY_MISSING" in state["error"]
    assert trace_of(http, run)["steps"] == []


@pytest.mark.usefixtures("no_key")
def test_a_key_is_not_missed_before_a_step_that_may_never_be_run(http: httpx2.Client) -> None:
    execute(http, "not-always")
    answer = http.post("/seq/acme/demo/not-always/execute", json={"parameters": {"ask": True}})
    assert refusal(answer) == (500, "STEP_FAILED")
    assert detail(answer)["stepId"] == "seldom"
    assert detail(answer)["error"]["code"] == "PROVIDER_KEY_MISSING"


@pytest.mark.parametrize("call", ["execute", "jobs", "v1/step"])
def test_the_budget_is_checked_last(server: RunningServer, poor: httpx2.Client, call: str) -> None:
    def ask(slug: str, **body: Any) -> tuple[int, str]:
        return refusal(poor.post(f"/seq/acme/poor/{slug}/{call}", json=body))

    with http_for(server, "nk_unknown") as nobody:
        refused = nobody.post(f"/seq/acme/poor/none/{call}", content=b"no JSON")
        assert refusal(refused) == (401, "UNAUTHENTICATED")
    with http_for(server, server.make_key("acme", "poor", "read")) as reader:
        assert refusal(reader.post(f"/seq/acme/poor/asking/{call}", content=b"no JSON")) == (403, "FORBIDDEN")
    assert ask("none", message=5) == (404, "FLOW_NOT_FOUND")
    missing = (404, "FLOW_NOT_FOUND")
    for slug, headers, told in (
        ("none", {}, missing),
        ("none", {"Idempotency-Key": "none"}, missing),
        ("asking", {}, (413, "REQUEST_TOO_LARGE")),
    ):
        # A connection each: the server cuts one on which more of a body comes than it reads after its answer.
        with http_for(server, poor.headers["Authorization"].removeprefix("Bearer ")) as once:
            refused = once.post(f"/seq/acme/poor/{slug}/{call}", content=b"x" * 2_000_001, headers=headers)
            assert refusal(refused) == told
    turn = {"role": "user", "content": "x" * 1_000_000}
    assert ask("asking", messages=[turn, {"role": "none"}]) == (413, "MESSAGES_TOO_LARGE")
    assert ask("asking", message=5) == (422, "INVALID_REQUEST")
    assert ask("asking", blockOverrides={"none": {}}) == (422, "INVALID_REQUEST")
    assert ask("asking", blockOverrides={"ask": {"model": "x:y"}}) == (400, "MODEL_NOT_SUPPORTED")
    assert ask("lost") == (400, "MODEL_NOT_SUPPORTED")
    assert ask("needy") == (400, "MISSING_MESSAGE")
    assert ask("needy", message="a") == (422, "INVALID_REQUEST")
    assert ask("asking") == (402, "INSUFFICIENT_CREDITS")
    assert poor.get("/flow-runs").json()["runs"] == []


def test_a_repeated_call_gets_its_answer_though_the_money_is_spent(server: RunningServer) -> None:
    server.push(ASKING, org="acme", project="spender")
    with http_for(server, server.make_key("acme", "spender")) as http:
        for call in ("execute", "jobs"):
            path, headers = f"/seq/acme/spender/asking/{call}", {"Idempotency-Key": call}
            first = http.post(path, json={}, headers=headers)
            set_budget(server, "0", project="spender")
            assert http.post(path, json={}, headers=headers).content == first.content
            assert refusal(http.post(path, json={})) == (402, "INSUFFICIENT_CREDITS")
            set_budget(server, None, project="spender")

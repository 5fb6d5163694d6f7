"""What overrides do, and what the trace has of them: names always, values where content is kept.

And which of them a `run` key may make: fields that the flow offers, with allowed models and settings. A long
file, as what an override does and who may make it are rules about the same fields of the same flows.
"""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from runglass.config.settings import SettingsError
from runglass.runtime.policy import PAGE_FLOWS
from runglass.testing import RunningServer, running_server
from tests.contract import wire
from tests.contract.test_tool_calls import paused, results_of, resumption
from tests.servers import server_on, server_with

SECRET = "hunter2hunter2"

FLOW = """
slug: greet-{slug}
capture: {mode}
steps:
  - {{id: ask, type: llm, model: echo, prompt: "Greet {{{{ who }}}}"}}
  - {{id: end, type: passthrough}}
"""
SETTLED = """
slug: settled
capture: full
steps:
  - {id: ask, type: llm, model: echo, prompt: x, settings: {temperature: 1, max_tokens: 9, seed: 5}}
"""
STEER = """
slug: steer
inputs: {type: object, properties: {n: {type: integer}}}
steps:
  - {id: a, type: passthrough}
  - id: each
    type: loop
    over: over
    input: {over: ["x", "y"]}
    steps:
      - {id: inner, type: passthrough, input: {item: "{{ item }}", by: template}}
  - {id: z, name: Last, type: passthrough, input: {said: template, kept: template}}
"""
FLOWS = {
    "plain": """
slug: plain
capture: full
steps:
  - {id: each, type: loop, over: "[1]", steps: [{id: inner, type: code, code: 'return {"n": 0}'}]}
  - {id: ask, type: llm, model: echo, prompt: Hello, retry: {max_attempts: 1}}
  - {id: work, type: code, code: 'return {"n": 1}'}
  - {id: rest, type: wait, ms: 0}
""",
    "open": """
slug: open
overridable: [code, ms]
steps:
  - {id: ask, type: llm, model: echo, prompt: Hello}
  - {id: work, type: code, code: 'return {"n": 1}'}
  - {id: rest, type: wait, ms: 0}
""",
    "other": "{slug: other, steps: [{id: a, type: llm, model: 'local:named', prompt: Hi}]}",
}
MODES = {"off": "off", "metadata": "metadata_only", "full": "full"}
CODE = {"work": {"code": 'return {"n": 2}'}}
GREET, STEP_BY_STEP = "/seq/acme/demo/greet-full/step", "/seq/acme/demo/steer/step"


# A port that nobody listens on: whoever may ask a model finds out at once, and for nothing.
LOCAL = {"local": "http://127.0.0.1:9/v1"}
server = server_with(
    *(FLOW.format(mode=mode, slug=slug) for slug, mode in MODES.items()),
    *(SETTLED, STEER, *FLOWS.values()),
    providers=LOCAL,
    allowed_settings={"local": ["extra_body.harmless"]},
)


def begin(http: httpx2.Client, path: str, **body: Any) -> str:
    return str(wire.walked(http, path, **body)[0].data["executionId"])


@pytest.mark.parametrize("slug", MODES)
def test_the_trace_names_the_overrides_of_a_call(http: httpx2.Client, slug: str) -> None:
    body = {"parameters": {"who": "Ada"}, "blockOverrides": {"ask": {"prompt": "Thank {{ who }}"}}}
    run = wire.execute(http, f"greet-{slug}", **body)
    flow_run = wire.trace_of(http, run)["flowRun"]
    assert flow_run["overridden"] == ["ask.prompt"]
    told = next(frame.data for frame in wire.events_of(http, run) if frame.event == "overrides_applied")
    assert told.get("blockOverrides") == (body["blockOverrides"] if slug == "full" else None)
    assert (flow_run["flowSlug"], flow_run["version"]) == (f"greet-{slug}", 1)


def test_overrides_of_later_calls_join_those_before(http: httpx2.Client) -> None:
    overrides = {"ask": {"system": "Be kind"}}
    run = begin(http, GREET, parameters={"who": "Ada"}, blockOverrides=overrides)
    given = {"text": "another"}
    wire.walked(http, GREET, executionId=run, stepIndex=1, blockOverrides=overrides, inputOverrides=given)
    flow_run = wire.trace_of(http, run)["flowRun"]
    assert flow_run["status"] == "completed"
    assert flow_run["overridden"] == ["ask.system", "end.input.text"]
    first, second = [each.data for each in wire.events_of(http, run) if each.event == "overrides_applied"]
    assert (first["blockOverrides"], first.get("inputOverrides")) == (overrides, None)
    assert (second.get("blockOverrides"), second["inputOverrides"]) == (None, {"end": given})


def test_the_trace_names_no_header_and_no_text(http: httpx2.Client) -> None:
    run = begin(
        http,
        GREET,
        parameters={"who": "Ada"},
        blockOverrides={"ask": {"settings": {"extra_headers": {"X-Key": SECRET}}}},
        inputOverrides={"not a name: born 1970": 1, "text": 2},
        runRemaining=True,
    )
    overridden = ["ask.input.text", "ask.input.…", "ask.settings"]
    assert wire.trace_of(http, run)["flowRun"]["overridden"] == overridden
    assert SECRET not in http.get(f"/flow-runs/{run}/trace/stream").text


@pytest.mark.parametrize(
    ("override", "sent", "named"),
    [
        ({"settings.temperature": 0}, {"temperature": 0, "max_tokens": 9, "seed": 5}, "temperature"),
        ({"settings.seed": None}, {"temperature": 1, "max_tokens": 9}, "seed"),
        (
            {"settings.extra_headers": {"X-Key": SECRET}},
            {"temperature": 1, "max_tokens": 9, "seed": 5, "extra_headers": {"X-Key": "[redacted]"}},
            "extra_headers",
        ),
        ({"settings": {"top_p": 1}, "settings.seed": 7}, {"top_p": 1, "seed": 7}, None),
    ],
)
def test_one_setting_is_set_and_the_others_stay(
    http: httpx2.Client, override: dict[str, Any], sent: dict[str, Any], named: str | None
) -> None:
    run = wire.execute(http, "settled", blockOverrides={"ask": override})
    trace = wire.trace_of(http, run)
    assert trace["steps"][0]["modelCalls"][0]["request"]["settings"] == sent
    assert named is None or trace["flowRun"]["overridden"] == [f"ask.settings.{named}"]
    assert SECRET not in http.get(f"/flow-runs/{run}/trace/stream").text


def outputs(http: httpx2.Client, **body: Any) -> dict[str, list[Any]]:
    """What each step of `steer` gave in one call, by step id."""
    found: dict[str, list[Any]] = {}
    for frame in wire.walked(http, STEP_BY_STEP, **body):
        if frame.event == "step_completed":
            found.setdefault(frame.data["stepId"], []).append(frame.data["output"])
    return found


def test_input_overrides_of_a_named_step_hold_whenever_it_runs(http: httpx2.Client) -> None:
    """Over what its own template says, in each iteration, in whichever call it runs; the rest stays."""
    given = {"z": {"said": "by me"}, "inner": {"by": "me"}}
    body = {"parameters": {"n": 1}, "inputOverrides": given}
    run = begin(http, STEP_BY_STEP, **body)
    assert outputs(http, executionId=run, stepIndex=1, inputOverrides=given) == {
        "inner": [{"item": "x", "by": "me"}, {"item": "y", "by": "me"}]
    }
    assert outputs(http, executionId=run, stepIndex=2, inputOverrides=given) == {
        "z": [{"said": "by me", "kept": "template"}]
    }
    whole = outputs(http, **body, runRemaining=True)
    assert whole["a"] == [{"n": 1}]
    assert whole["inner"][1] == {"item": "y", "by": "me"}
    assert whole["z"] == [{"said": "by me", "kept": "template"}]


def test_other_input_overrides_are_for_the_first_step_of_the_segment(http: httpx2.Client) -> None:
    """So does the id of a step beside which no object stands."""
    given = {"n": 2, "z": "no object", "other": {"deep": 1}}
    assert outputs(http, parameters={"n": 1}, inputOverrides=given) == {"a": [given]}
    both = {"n": 2, "a": {"n": 3}}
    assert outputs(http, parameters={"n": 1}, inputOverrides=both) == {"a": [{"n": 3}]}


def test_a_call_without_input_overrides_keeps_the_earlier_ones(http: httpx2.Client) -> None:
    run = begin(http, STEP_BY_STEP, inputOverrides={"n": 5, "z": {"said": "before"}})
    outputs(http, executionId=run, stepIndex=1)
    assert outputs(http, executionId=run, stepIndex=2, inputOverrides=None) == {
        "z": [{"said": "before", "kept": "template"}]
    }
    run = begin(http, STEP_BY_STEP, inputOverrides={"z": {"said": "before"}})
    outputs(http, executionId=run, stepIndex=1, inputOverrides={"z": {"kept": "later"}})
    assert outputs(http, executionId=run, stepIndex=2) == {"z": [{"said": "template", "kept": "later"}]}
    run = begin(http, STEP_BY_STEP, inputOverrides={"z": {"said": "before"}})
    assert outputs(http, executionId=run, stepIndex=1, inputOverrides={}, runRemaining=True)["z"] == [
        {"said": "template", "kept": "template"}
    ]


@pytest.fixture(scope="module")
def run(server: RunningServer) -> Iterator[httpx2.Client]:
    server.push("{slug: draft, steps: [{id: a, type: llm, model: 'local:hidden'}]}", publish=False)
    with wire.http_for(server, server.make_key("acme", "demo", "run")) as http:
        yield http


def path(slug: str, call: str = "execute") -> str:
    return f"/seq/acme/demo/{slug}/{call}"


def pushed(http: httpx2.Client, slug: str, *, project: str = "demo", **fields: Any) -> httpx2.Response:
    """The answer to a push of a flow whose step has these fields."""
    step = {"id": "a", "type": "llm", "model": "local:m", "prompt": "x", **fields}
    return http.put(f"/flows/acme/{project}/{slug}", json={"slug": slug, "steps": [step]})


FORBIDDEN = [
    (CODE, "`blockOverrides.work.code`", "`overridable`"),
    ({"rest": {"ms": 1}}, "`blockOverrides.rest.ms`", "`overridable`"),
    ({"inner": CODE["work"]}, "`blockOverrides.inner.code`", "`overridable`"),
    ({"ask": {"tools": False}}, "`blockOverrides.ask.tools`", "`admin` key"),
    ({"ask": {"model": "local:unnamed"}}, "'local:unnamed'", "projects models"),
    ({"ask": {"model": "local:hidden"}}, "'local:hidden'", "published flows"),
    ({"ask": {"settings": {"extra_body": {"harmless": 1}}}}, "settings.extra_body", "`admin` key"),
    ({"ask": {"settings": {"extra_headers": {"X-Title": "a"}}}}, "settings.extra_headers", "`admin` key"),
    ({"ask": {"settings": {"openai_store": True}}}, "settings.openai_store", "`allowed_settings`"),
    ({"ask": {"settings.extra_body": {"harmless": 1}}}, "settings.extra_body", "`admin` key"),
]


@pytest.mark.parametrize(("overrides", "what", "how"), FORBIDDEN)
def test_a_field_that_is_not_offered_is_forbidden_and_the_error_says_how_to_allow_it(
    run: httpx2.Client, overrides: dict[str, Any], what: str, how: str
) -> None:
    before = run.get("/flow-runs").json()
    for call in ("execute", "jobs", "step", "v1/execute", "execute?version=0"):
        answer = run.post(path("plain", call), json={"blockOverrides": overrides})
        assert wire.refusal(answer, what, how) == (403, "FORBIDDEN")
    assert run.get("/flow-runs").json() == before, "nothing was started"


OFFERED = [
    {"ask": {"prompt": "Hi", "system": "Be kind", "settings": {"temperature": 0, "max_tokens": 5}}},
    {"ask": {"input": {"a": 1}, "output_schema": {"type": "object"}, "model": "echo"}},
    {"ask": {"settings": {"openai_reasoning_effort": "low"}}},
    {"work": {"code": 'return {"n": 1}'}},
    {"ask": {"retry": {"max_attempts": 1}}},
]


@pytest.mark.parametrize("overrides", OFFERED)
def test_a_field_that_is_offered_can_be_overridden(run: httpx2.Client, overrides: dict[str, Any]) -> None:
    """The last two are no change: they have the values that the flow has."""
    assert run.post(path("plain"), json={"blockOverrides": overrides}).status_code == 200


def test_a_flow_offers_the_fields_that_it_lists_and_no_others(run: httpx2.Client) -> None:
    listed = {"blockOverrides": {**CODE, "rest": {"ms": 1}}}
    assert run.post(path("open"), json=listed).json()["result"] == {"n": 2}
    for other in ({"prompt": "Hi"}, {"settings": {"temperature": 0}}, {"settings.temperature": 0}):
        answer = run.post(path("open"), json={"blockOverrides": {"ask": other}})
        assert wire.refusal(answer, "`overridable`") == (403, "FORBIDDEN")


def test_a_model_that_a_published_flow_names_may_be_set(server: RunningServer) -> None:
    """Also where more flows stand before it than are looked at in one go."""
    flow, store = server.push(FLOWS["plain"], project="many"), server.runtime.store
    for number in range(PAGE_FLOWS):
        slug = f"plain-{number}"
        server.call(store.put_draft(flow.project_id, slug, name=None, capture=None, source=b"{}"))
    server.push(FLOWS["other"].replace("slug: other", "slug: z"), project="many")
    with wire.http_for(server, server.make_key("acme", "many", "run")) as run:
        named = {"blockOverrides": {"ask": {"model": "local:named"}}}
        answer = run.post("/seq/acme/many/plain/execute", json=named)
        assert wire.refusal(answer) == (500, "STEP_FAILED"), "it was asked, and is not there"


def test_an_admin_may_set_every_field(http: httpx2.Client) -> None:
    overrides = {**CODE, "rest": {"ms": 1}, "ask": {"settings": {"extra_headers": {"Host": "a"}}}}
    answer = http.post(path("plain"), json={"blockOverrides": overrides})
    assert answer.json()["result"] == {"n": 2}, "only `echo` hears the header"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"extra_body": {"model": "dear"}}, "never sent"),
        ({"extra_body": {"stream_options": {"include_usage": False}}}, "never sent"),
        ({"extra_headers": {"HOST": "x"}}, "never sent"),
        ({"extra_headers": {"Authorization": "x"}}, "never sent"),
        ({"extra_headers": {"Cookie": "x"}}, "never sent"),
        ({"openai_store": True}, "`allowed_settings`"),
        ({"extra_headers": {"X-Other": "x"}}, "`allowed_settings`"),
        ({"extra_body": {"unheard_of": 1}}, "`allowed_settings`"),
    ],
)
def test_no_role_may_send_a_setting_that_changes_model_bill_or_address(
    http: httpx2.Client, settings: dict[str, Any], said: str
) -> None:
    body = {"blockOverrides": {"ask": {"model": "local:m", "settings": settings}}}
    assert wire.refusal(http.post(path("plain"), json=body), said) == (403, "FORBIDDEN")
    assert wire.refusal(pushed(http, "worse", settings=settings)) == (403, "FORBIDDEN")


def test_a_setting_of_the_server_opens_a_field_to_flows_with_its_provider(http: httpx2.Client) -> None:
    settings = {"extra_body": {"harmless": 1}}
    assert pushed(http, "tuned", settings=settings).status_code == 200
    assert wire.refusal(pushed(http, "tuned", settings=settings, model="openai:m")) == (403, "FORBIDDEN")


@pytest.mark.parametrize("name", ["extra_body", "extra_body.model", "extra_headers.Host"])
def test_no_setting_of_the_server_allows_a_setting_that_is_never_sent(name: str) -> None:
    allowed = {"*": [name]}
    with pytest.raises(SettingsError, match="cannot be allowed"), running_server(allowed_settings=allowed):
        pytest.fail("it started")


def test_a_resume_may_repeat_the_overrides_of_the_start(run: httpx2.Client, http: httpx2.Client) -> None:
    """An administrator sets the code anew; whoever brings the results may say so again, and say no more."""
    waiting = paused(http, path("plain"), blockOverrides=CODE)
    body = resumption(waiting, results_of(waiting))
    more = {"work": {"code": 'return {"n": 3}'}}
    assert wire.refusal(run.post(path("plain"), json={**body, "blockOverrides": more})) == (403, "FORBIDDEN")
    answer = run.post(path("plain"), json={**body, "blockOverrides": CODE})
    assert answer.json()["result"] == {"n": 2}


def test_each_call_of_a_step_through_is_checked(run: httpx2.Client) -> None:
    step, prompt = path("plain", "step"), {"ask": {"prompt": "Other"}}
    body = {"executionId": begin(run, step, blockOverrides=prompt), "stepIndex": 1}
    answer = run.post(step, json={**body, "blockOverrides": {**prompt, **CODE}})
    assert wire.refusal(answer) == (403, "FORBIDDEN")
    rest = wire.walked(run, step, **body, blockOverrides=prompt, runRemaining=True)
    assert rest[-1].event == "flow_completed"


def test_inputs_and_outputs_of_steps_may_be_set_only_where_the_flow_offers_inputs(
    server: RunningServer, run: httpx2.Client, http: httpx2.Client
) -> None:
    """Of a flow that offers no `input`, a walk is no other way to set it."""
    server.push(
        "{slug: held, overridable: [], steps: [{id: a, type: code, code: 'return {\"n\": 1}'},"
        " {id: b, type: passthrough}]}"
    )
    forged, given = {"accumulatedOutputs": {"a": {"n": 2}}}, {"inputOverrides": {"b": {"n": 3}}}

    def told(caller: httpx2.Client, **more: Any) -> Any:
        step = path("held", "step")
        answer = caller.post(step, json={"executionId": begin(caller, step), "stepIndex": 1, **more})
        return (
            wire.frames(answer.text)[-1].data["result"] if answer.status_code == 200 else wire.refusal(answer)
        )

    assert told(run, **forged) == {"n": 1}
    assert told(run, **given) == (403, "FORBIDDEN")
    assert told(http, **forged) == {"n": 2}
    assert told(http, **given) == {"n": 3}
    first = run.post(path("held", "step"), json={"inputOverrides": {"n": 3}})
    assert wire.refusal(first, "`overridable`") == (403, "FORBIDDEN")


def test_a_projects_list_of_models_holds_for_callers_runs_and_pushes(server: RunningServer) -> None:
    def allow(*patterns: str) -> None:
        server.call(server.runtime.store.set_allowed_models(flow.project_id, list(patterns)))

    server.push(FLOWS["plain"], project="listed")
    flow = server.push(FLOWS["other"], project="listed")
    place, other = "/seq/acme/listed/plain/execute", {"blockOverrides": {"ask": {"model": "local:new"}}}
    once_more = {"blockOverrides": {"ask": {"model": "local:nought"}}}
    with (
        wire.http_for(server, server.make_key("acme", "listed", "run")) as run,
        wire.http_for(server, server.make_key("acme", "listed")) as admin,
    ):
        assert wire.refusal(run.post(place, json=other)) == (403, "FORBIDDEN")
        allow("local:n*")
        assert wire.refusal(run.post(place, json=other)) == (500, "STEP_FAILED")
        allow("openai:*")
        named = "/seq/acme/listed/other/execute"
        for http in (run, admin):
            assert wire.refusal(http.post(place, json=once_more)) == (403, "FORBIDDEN")
            assert wire.refusal(http.post(named, json={})) == (403, "FORBIDDEN")
            assert http.post(place, json={}).status_code == 200, "`echo` may always be"
        assert wire.refusal(pushed(admin, "new", project="listed"), "openai:*") == (403, "FORBIDDEN")


def test_rules_set_while_a_body_comes_in_hold_for_its_run(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body may take minutes: what a project allows is asked when it is there."""
    flow = server.push(FLOWS["other"], project="late")
    key = server.make_key("acme", "late", "run")
    path = "/seq/acme/late/other/execute"
    with wire.half_sent(server, monkeypatch, path, b"{}", key=key) as connection:
        server.call(server.runtime.store.set_allowed_models(flow.project_id, ["openai:*"]))
        connection.sendall(b"}")
        status, _, body = wire.read_answer(connection)
    assert status == 403
    assert b"openai:*" in body


def test_no_model_is_an_address(run: httpx2.Client, http: httpx2.Client) -> None:
    """There are packages that would send it the provider's key."""
    model = "huggingface:https://elsewhere.example/v1"
    override = {"blockOverrides": {"ask": {"model": model}}}
    assert wire.refusal(run.post(path("plain"), json=override)) == (403, "FORBIDDEN")
    assert wire.refusal(http.post(path("plain"), json=override)) == (400, "MODEL_NOT_SUPPORTED")
    assert wire.refusal(pushed(http, "away", model=model), "is an address") == (422, "INVALID_REQUEST")


def test_the_server_lists_models_for_projects_without_a_list() -> None:
    with (
        server_on("sqlite", FLOWS["plain"], providers=LOCAL, allowed_models=["local:cheap-*"]) as server,
        wire.http_for(server, server.make_key("acme", "demo", "run")) as run,
    ):
        cheap, dear = (
            run.post(path("plain"), json={"blockOverrides": {"ask": {"model": model}}})
            for model in ("local:cheap-1", "local:dear")
        )
    assert wire.refusal(cheap) == (500, "STEP_FAILED")
    assert wire.refusal(dear, "`allowed_models`") == (403, "FORBIDDEN")

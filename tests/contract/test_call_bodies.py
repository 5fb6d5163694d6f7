"""What is taken of the body of a call: each limit at the limit and one past it, and where a mistake is."""

import json
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.contract.test_tool_calls import paused as paused_for_tools
from tests.contract.wire import detail, events_of, execute, read, refusal
from tests.servers import server_with

PATH = "/seq/acme/demo/ask/execute"
ASK = 'slug: ask\nsteps: [{id: ask, type: llm, model: echo, prompt: "{{ message }}"}]\n'

server = server_with(ASK, capture="full")

PNG = {"url": "https://example.org/a.png", "mimeType": "image/png"}
NOW = {"role": "user", "content": "and now?"}
CALL = {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
SHOWN = "https://a.b/c.PNG?size=2"


def tool(name: Any = "look_up", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def taken(http: httpx2.Client, body: dict[str, Any]) -> Any:
    """The input of the run that the body starts, as its trace has it."""
    return read(http, f"/flow-runs/{execute(http, 'ask', **body)}")["input"]


def test_ten_attachments_are_taken(http: httpx2.Client) -> None:
    fields = [
        {"url": "https://example.org/".ljust(2048, "x")},
        {"url": "https://user@[2001:db8::1]:8443/a%20b?c=d#e"},
        {"url": "HTTPS://example.org"},
        {"filename": "x" * 255},
        {"filename": "holiday. 1.png"},
        {"kind": "url"},
        *({"mimeType": f"image/{kind}"} for kind in ("jpeg", "png", "webp", "gif")),
    ]
    given = [PNG | each for each in fields]
    assert len(given) == 10
    assert taken(http, {"message": "a", "attachments": given})["attachments"] == given
    # In both spellings; what is null is not given.
    odd = {"url": PNG["url"], "mime_type": "image/png", "mimeType": None, "filename": None, "size": 3}
    assert taken(http, {"message": "a", "attachments": [odd]})["attachments"] == [PNG]


@pytest.mark.parametrize(
    ("tools", "tool_choice"),
    [
        ([], "auto"),
        ([], "none"),
        ([tool()], None),
        ([tool()], "required"),
        ([tool()], tool("look_up")),
        ([tool("a"), tool("b")], "b"),
        ([tool("none")], "none"),
        ([tool("A-z_09"), tool("x" * 64)], "auto"),
        ([tool(description="d", parameters={"type": "object"}, strict=True, more=1)], None),
        ([tool(description=None, parameters=None, strict=None)], None),
        ([tool(f"t{number}") for number in range(64)], None),
    ],
)
def test_tools_are_taken(http: httpx2.Client, tools: list[Any], tool_choice: Any) -> None:
    assert execute(http, "ask", message="a", tools=tools, toolChoice=tool_choice)


@pytest.mark.parametrize(("calls", "call_id"), [("toolCalls", "toolCallId"), ("tool_calls", "tool_call_id")])
def test_turns_come_out_in_one_spelling(http: httpx2.Client, calls: str, call_id: str) -> None:
    messages = [
        user([part("one "), image("https://a.b/photo"), part("two")]),
        {"role": "assistant", "content": [part("th"), part("ree")], "refusal": None},
        {"role": "assistant", "content": None, calls: [CALL], "toolCalls": [CALL]},
        {"role": "tool", call_id: "a", "toolCallId": "a", "content": {"n": 1}, "name": "look_up"},
        {"role": "tool", call_id: "b", "content": [part("fo"), part("ur")]},
        user([part("five"), image(SHOWN)]) | {"attachments": [{"url": "theirs"}]},
    ]
    assert taken(http, {"messages": messages}) == {
        "inputs": {"message": "five"},
        "messages": [
            user("one two") | {"attachments": [{"url": "https://a.b/photo", "mimeType": "image/jpeg"}]},
            {"role": "assistant", "content": "three"},
            {"role": "assistant", "toolCalls": [CALL]},
            {"role": "tool", "toolCallId": "a", "name": "look_up", "content": '{"n":1}'},
            {"role": "tool", "toolCallId": "b", "content": "four"},
        ],
        "attachments": [{"url": SHOWN, "mimeType": "image/png"}],
    }


def test_a_megabyte_of_messages_is_taken(http: httpx2.Client) -> None:
    length = 1_000_000 - len('[{"role":"user","content":""}]')
    assert http.post(PATH, json={"messages": [user("x" * length)]}).status_code == 200
    too_many = http.post(PATH, json={"messages": [user("x" * (length + 1))]})
    assert refusal(too_many, "1,000,001 bytes") == (413, "MESSAGES_TOO_LARGE")


NO_URLS = (
    *("http://example.org/a.png", "data:image/png;base64,AAAA", "file:///a.png", "//example.org/a.png"),
    *("https://", "https:///a.png", "https://[bad/a.png", "https://example.org/a b", ""),
    *("https://example.org/a\n", "ht\ntps://example.org"),
)
IMAGES: dict[str, list[dict[str, Any]]] = {
    ".kind` must be 'url'": [{"kind": "base64"}],
    ".kind` must be text": [{"kind": True}],
    ".mimeType` must be one of": [{"mimeType": each} for each in ("image/tiff", "image/png; a=b", "")],
    ".mimeType` must be text": [{"mimeType": 3}],
    ".mimeType` is missing": [{"mimeType": None}],
    ".url` must be a full https:// address": [{"url": url} for url in NO_URLS],
    ".url` must be text": [{"url": ["https://a"]}],
    ".url` is missing": [{"url": None}],
    ".url` has 2,049 characters": [{"url": "https://example.org/".ljust(2049, "x")}],
    ".filename` has 256 characters": [{"filename": "x" * 256}],
    ".filename` must be a bare name": [{"filename": name} for name in ("a/b.png", "a\\b", "..png")],
    ".filename` must be text": [{"filename": {}}],
}
TOOLS: list[tuple[Any, Any, str]] = [
    ("x", None, "`tools`"),
    ({}, None, "`tools`"),
    ([tool(), {"function": {"name": "b"}}], None, "`tools[1]`"),
    ([{"type": "retrieval", "function": {"name": "b"}}], None, "`tools[0]`"),
    ([{"type": "function", "name": "b"}], None, "`tools[0]`"),
    ([tool(parameters=[])], None, "`tools[0].function.parameters`"),
    ([tool(description=1)], None, "`tools[0].function.description`"),
    ([tool(strict="yes")], None, "`tools[0].function.strict`"),
    ([tool(), tool()], None, "`tools[1]`"),
    ([tool(f"t{number}") for number in range(65)], None, "65 entries; at most 64"),
    ([], "required", "`toolChoice`"),
    ([tool()], "always", "`toolChoice`"),
    ([tool()], "look", "'look', which is not among `tools`"),
    ([], "look_up", "'look_up', which is not among `tools`"),
    ([tool()], {"type": "function"}, "`toolChoice`"),
    ([tool()], {"function": {"name": "look_up"}}, "`toolChoice`"),
    ([tool()], tool("other"), "'other'"),
    ([], tool("look_up"), "'look_up'"),
]
TURNS: list[tuple[Any, str]] = [
    (3, ""),
    ({}, ""),
    ({"role": 1}, ".role"),
    ({"role": "user"}, ".content"),
    ({"role": "user", "content": None, "toolCalls": [CALL]}, ".content"),
    (user([]), ".content"),
    (user(part("x")), ".content"),
    (user(["x"]), ".content[0]"),
    (user([{"type": "audio"}]), ".content[0]"),
    (user([{"type": "text", "text": 1}]), ".content[0].text"),
    (user([part("a"), {"type": "image_url"}]), ".content[1].image_url"),
    (user([{"type": "image_url", "image_url": SHOWN}]), ".content[0].image_url"),
    ({"role": "assistant", "content": [image(SHOWN)]}, ".content"),
    ({"role": "assistant", "content": []}, ""),
    ({"role": "assistant", "toolCalls": [CALL], "tool_calls": []}, ""),
    ({"role": "assistant"}, ""),
    ({"role": "assistant", "content": 1}, ".content"),
    ({"role": "assistant", "toolCalls": {}}, ".toolCalls"),
    ({"role": "assistant", "toolCalls": [{}]}, ".toolCalls[0]"),
    ({"role": "assistant", "tool_calls": [{"id": "a"}]}, ".toolCalls[0]"),
    (
        {"role": "assistant", "toolCalls": [{"id": "a", "function": {"name": "n", "arguments": {}}}]},
        ".toolCalls[0].function.arguments",
    ),
    ({"role": "tool", "content": "x"}, ".toolCallId"),
    ({"role": "tool", "content": "x", "toolCallId": ""}, ".toolCallId"),
    ({"role": "tool", "content": "x", "tool_call_id": 3}, ".toolCallId"),
    ({"role": "tool", "content": "x", "toolCallId": "a", "tool_call_id": "b"}, ""),
]
SHOWN_WRONGLY: list[tuple[dict[str, Any], str]] = [
    (user([image("data:image/png;base64,AAAA")]), "(`data:`) are not taken"),
    (user([image("http://a.b/c.png")]), "must be a full https:// address"),
    (user([image("https://a.b/" + "c" * 2048)]), "at most 2,048 are taken"),
    (user([image(SHOWN)] * 11), "has 11 images; at most 10 are taken"),
    ({"role": "tool", "toolCallId": "a", "content": [part("a"), image(SHOWN)]}, "has text alone"),
]
REFUSED: dict[tuple[int, str], list[tuple[dict[str, Any], str]]] = {
    (400, "INVALID_ATTACHMENT"): [
        *(
            ({"attachments": [PNG, PNG | wrong]}, f"`attachments[1]{said}")
            for said, fields in IMAGES.items()
            for wrong in fields
        ),
        ({"attachments": [PNG, PNG["url"]]}, "`attachments[1]` must be an object"),
        ({"attachments": [PNG] * 11}, "11 entries; at most 10"),
        *(({"messages": [turn, NOW]}, said) for turn, said in SHOWN_WRONGLY),
    ],
    (400, "TOOLS_INVALID"): [
        ({"tools": tools, "toolChoice": tool_choice}, said) for tools, tool_choice, said in TOOLS
    ],
    (400, "TOOL_NAME_INVALID"): [
        ({"tools": [tool("good"), tool(name)]}, "`tools[1].function.name`")
        for name in ("", "a b", "a.b", "x" * 65, "é", "a\n", None, 3, "٣")
    ],
    (400, "MESSAGES_ROLE_INVALID"): [
        *(
            ({"messages": [{"role": role, "content": []}, NOW]}, "`messages[0].role`")
            for role in ("system", "developer", "User", "")
        ),
        ({"messages": [NOW, {"role": "assistant", "content": "x"}]}, "`messages[1]`"),
        ({"messages": [NOW, {"role": "tool", "toolCallId": "a", "content": "x"}]}, "`messages[1]`"),
    ],
    (422, "INVALID_REQUEST"): [
        *(({"messages": [turn, NOW]}, f"`messages[0]{place}`") for turn, place in TURNS),
        ({"message": "a", "tools": [3]}, "`tools[0]`"),
        *(({"messages": [NOW], "message": message}, "exclude each other") for message in ("x", "")),
        *(({"message": wrong}, "`message`") for wrong in (3, ["a"])),
        ({"message": "a", "parameters": []}, "`parameters`"),
        ({"message": "a", "trace": "yes"}, "`trace`"),
        *(
            ({"message": "a", name: []}, f"`{name}`")
            for name in ("toolChoice", "executionId", "iterationsUsed", "accumulatedOutputs", "pausedAtStep")
        ),
        *(
            ({"message": "a", "accumulatedOutputs": {"a": wrong}}, "`accumulatedOutputs")
            for wrong in (5, "x", [1])
        ),
        ({"message": "a", "tool_choice": []}, "`toolChoice`"),
        *(
            ({"message": "a", name: "x"}, f"`{name}` is a field of")
            for name in ("stepIndex", "run_remaining")
        ),
        ({"message": "a", "blockOverrides": {}, "block_overrides": {}}, "`block_overrides`"),
        ({"message": "a", "blockOverrides": {"ask": 1}}, "`blockOverrides.ask`"),
        ({"message": "a", "block_overrides": {"aks": {}}}, "`blockOverrides.aks`"),
        ({"message": "a", "parameters": {"n": [int("9" * 600)] * 5_000}}, "more than 2,000,000 values"),
        *(
            ({name: "a"}, f"`{name}`: unknown field; did you mean '{meant}'")
            for meant, names in {
                "message": "mesage messgae messsage massage emssage Message",
                "trace": "trcae tracd",
                "tools": "tool",
                "parameters": "parameter parametres",
                "blockOverrides": "blockoverrides BLOCK_OVERRIDES block-overrides blockOveride",
                "toolCallMessages": "toolCallMessage",
            }.items()
            for name in names.split()
        ),
        ({f"field{number}": 0 for number in range(99)} | {"tarce": True}, "`tarce`: unknown field"),
    ],
}


@pytest.mark.parametrize(
    ("body", "refused", "said"),
    [(body, refused, said) for refused, rows in REFUSED.items() for body, said in rows],
)
def test_a_mistake_is_refused_with_its_place(
    http: httpx2.Client, body: dict[str, Any], refused: tuple[int, str], said: str
) -> None:
    assert refusal(http.post(PATH, json=body), said) == refused


@pytest.mark.parametrize(
    "name", ["executionId", "toolCallMessages", "stepIndex", "inputOverrides", "runRemaining"]
)
def test_a_field_that_a_job_does_not_have_is_refused_if_it_says_something(
    http: httpx2.Client, name: str
) -> None:
    jobs = PATH.replace("execute", "jobs")
    assert refusal(http.post(jobs, json={name: "x"}), f"`{name}` is a field of") == (422, "INVALID_REQUEST")
    nothings: tuple[Any, ...] = (None, False, 0, 0.0, "", [], {})
    for nothing in nothings:
        assert http.post(jobs, json={"message": "a", name: nothing}).status_code == 202
    pause = {"pausedAtStep": "x", "iterationsUsed": "x", "accumulatedOutputs": "x"}
    assert http.post(jobs, json={"message": "a", **pause}).status_code == 202


OWN = "status toolCalls flowId blockCount result runId stepId eventType at seq"
THEIRS = "messageId traceId sessionId userId metadata tags model input inputs version conversation_id"


@pytest.mark.parametrize(
    "more",
    [
        # So many unknown names are compared with the known ones, and no more.
        {f"field{number}": 0 for number in range(100)} | {"tarce": True},
        {"parameters": {"n": [int("9" * 600)] * 90}},
        {"parameters": {"n": [1234567890] * 20_000}},
    ],
)
def test_many_unknown_fields_and_numbers_are_taken(http: httpx2.Client, more: dict[str, Any]) -> None:
    answer = http.post(PATH, json={"message": "a", **more})
    assert (answer.status_code, answer.json().get("result")) == (200, {"text": "a"}), answer.text


def test_fields_of_answers_and_of_other_clients_are_no_input(http: httpx2.Client) -> None:
    more = {name: {"a": [1]} for name in [*OWN.split(), *THEIRS.split(), "", "_", "é", "x" * 10_000]}
    assert taken(http, {"message": "a", **more})["inputs"] == {"message": "a"}


GOOD = {"role": "tool", "toolCallId": "A", "content": "1"}


@pytest.fixture
def paused(http: httpx2.Client) -> dict[str, Any]:
    """A run that waits for the results of two calls."""
    return paused_for_tools(http, PATH, tools=[tool("first"), tool("second")])


def resume(http: httpx2.Client, paused: dict[str, Any], *results: Any) -> httpx2.Response:
    """Sends these results, in which `A` and `B` stand for the two calls, behind the turn with the calls."""
    text = json.dumps([paused["toolCallMessages"][-1], *results])
    for name, call in zip("AB", paused["toolCalls"], strict=True):
        text = text.replace(f'"{name}"', json.dumps(call["id"]))
    body = {"executionId": paused["executionId"], "toolCallMessages": json.loads(text)}
    return http.post(PATH, json=body)


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ({"role": "tool", "toolCallId": "B", "content": "2"}, "2"),
        ({"role": "tool", "tool_call_id": "B", "content": ""}, ""),
        ({"role": "tool", "toolCallId": "B", "tool_call_id": "B", "name": "x", "content": [part("2")]}, "2"),
        ({"toolCallId": "B", "output": [{"type": "text"}]}, '[{"type":"text"}]'),
        ({"tool_call_id": "B", "output": 2}, "2"),
        ({"toolCallId": "B", "output": False}, "false"),
        ({"role": "tool", "toolCallId": "B", "content": []}, "[]"),
        ({"role": None, "toolCallId": "B", "tool_call_id": None, "output": None}, "null"),
        ({"role": "tool", "toolCallId": "B", "output": {"a": [1, None, "é"]}}, '{"a":[1,null,"é"]}'),
    ],
)
def test_results_are_taken_in_every_spelling_and_order_as_text_or_json(
    http: httpx2.Client, paused: dict[str, Any], result: dict[str, Any], content: str
) -> None:
    """Those of an earlier round do not count, even under the same id."""
    old = {"toolCallId": "B", "output": "old"}
    again = paused["toolCallMessages"][-1]
    assert refusal(resume(http, paused, GOOD, old, again, GOOD)) == (400, "TOOL_RESULTS_MISMATCH")
    assert resume(http, paused, GOOD, old, again, result, GOOD).json()["status"] == "completed"
    events = events_of(http, paused["executionId"])
    (resumed,) = [event.data for event in events if event.event == "step_resumed"]
    assert [(each["name"], each["content"]) for each in resumed["inputData"]["toolResults"]] == [
        ("first", "1"),
        ("second", content),
    ]


SHOWS = {"role": "tool", "toolCallId": "B", "content": [image("https://a.b/c.png")]}
MISMATCH: list[tuple[list[Any], str]] = [
    ([], "no result for the tool call 'A', 'B'"),
    ([GOOD], "no result for the tool call 'B'"),
    ([GOOD, GOOD], "two results for the tool call 'A'"),
    ([GOOD, {"toolCallId": "c", "output": 1}], "no tool call 'c' is pending; the run waits for 'A', 'B'"),
    ([GOOD, {"output": 1}], "`toolCallMessages[2]` must name its tool call"),
    ([GOOD, {"toolCallId": 3, "output": 1}], "`toolCallMessages[2]` must name its tool call"),
    ([GOOD, {"toolCallId": "B", "tool_call_id": "A", "output": 1}], "must name its tool call"),
    ([GOOD, {"toolCallId": "B"}], "has no `content`"),
    ([GOOD, {"toolCallId": "B", "content": "1", "output": "2"}], "both `content` and `output`"),
    ([NOW], "`toolCallMessages[1]` is not the result"),
]


@pytest.mark.parametrize(
    ("results", "code", "said"),
    [
        *((results, "TOOL_RESULTS_MISMATCH", said) for results, said in MISMATCH),
        ([GOOD, SHOWS], "INVALID_ATTACHMENT", "a tool's result has text alone"),
    ],
)
def test_results_that_do_not_match_the_calls_are_refused(
    http: httpx2.Client, paused: dict[str, Any], results: list[Any], code: str, said: str
) -> None:
    answer = resume(http, paused, *results)
    for name, call in zip("AB", paused["toolCalls"], strict=True):
        said = said.replace(f"'{name}'", repr(call["id"]))
    assert refusal(answer, said) == (400, code)
    assert detail(answer)["executionId"] == paused["executionId"]


@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Session-Id"])
@pytest.mark.parametrize("verb", ["execute", "jobs", "step"])
def test_a_header_with_two_values_is_refused_by_its_name(http: httpx2.Client, name: str, verb: str) -> None:
    path, one, other = PATH.replace("execute", verb), str(uuid4()), str(uuid4())
    twice = http.post(path, json={"message": "a"}, headers=[(name, one), (name, other)])
    assert refusal(twice, name) == (422, "INVALID_REQUEST")
    assert http.post(path, json={"message": "a"}, headers=[(name, one), (name, one)]).is_success

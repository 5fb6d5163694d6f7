"""What a caller passes wrongly is refused before anything is sent, and the message says where it is."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from runglass.client.api.admin import Management
from tests.unit.client.scripted import ScriptedServer
from tests.unit.client.sides import Blocking, Side

HALF = "\ud800"
"""Half of a surrogate pair."""
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
NO_VERSIONS: list[Any] = [0, -1, True, "1", 1.0, None]
Ask = Callable[[Any], Any]


def execute(**given: Any) -> Ask:
    return lambda client: client.flow("a/p/s").execute(**given)


def push(slug: str, flow: str = "slug: s") -> Ask:
    return lambda client: Management(client).push("a", "p", slug, flow)


def set_production(version: Any) -> Ask:
    return lambda client: Management(client).set_production("a", "p", "s", version)


WITH_HALF = "half a surrogate pair"
REFUSED: dict[str, tuple[Ask, str]] = {
    "half a message": (execute(message=f"a{HALF}"), "message may not be"),
    "half, deep": (execute(parameters={"deep": [1, {"x": HALF}]}), r"parameters\.deep\[1\]\.x may not be"),
    "half a name": (execute(parameters={HALF: 1}), r"parameters\['\\ud800'\] may not be"),
    "half a URL": (execute(attachments=[{"url": HALF, "name": "n", "mimeType": "image/png"}]), "attach"),
    "attachment without type": (execute(attachments=[{"url": "https://host/a.png"}]), "mimeType"),
    "attachment as text": (execute(attachments=["https://host/a.png"]), "attachment must be"),
    "no rounds": (execute(max_tool_rounds=0), "max_tool_rounds"),
    "one tool": (execute(tools={"type": "function"}), "tools"),
    "tool as text": (execute(tools=["ab"]), "tools"),
    "message and messages": (execute(message="a", messages=[]), "messages"),
    "messages as text": (execute(messages="hi"), "messages"),
    "messages as number": (execute(messages=5), "messages must be a list"),
    "attachments as number": (execute(attachments=5), "attachments must be a list"),
    "trace as number": (execute(trace_context=5), "trace_context must be headers"),
    "parent as number": (execute(trace_context={0: "", "traceparent": 5}), "no W3C traceparent: '5'"),
    "session": (execute(session_id="me"), "session"),
    "parameters as list": (execute(parameters=["ab", "cd"]), "parameters"),
    "overrides as list": (execute(block_overrides=["ab"]), "block_overrides"),
    "override as list": (execute(block_overrides={"ask": ["ab"]}), "block_overrides"),
    "steps of a draft": (lambda client: client.flow("a/p/s").steps(version="draft"), "only published"),
    "events of a draft": (lambda client: client.flow("a/p/s").events(version=0), "only published"),
    "no handler": (lambda client: client.flow("a/p/s").steps(tools=TOOLS), "tools need a tool_handler"),
    "key of two lines": (lambda client: client.run("r").rerun(idempotency_key="a\nb"), "idempotency_key"),
    "key as number": (lambda client: client.run("r").rerun(idempotency_key=5), "idempotency_key"),
    "key with a space": (lambda client: client.run("r").rerun(idempotency_key="a "), "idempotency_key"),
    "key beyond ASCII": (lambda client: client.run("r").rerun(idempotency_key="é"), "idempotency_key"),
    "half a slug": (lambda client: client.flow(f"a/p/{HALF}"), WITH_HALF),
    "half an org": (lambda client: client.flow(slug="s", org=HALF, project="p"), WITH_HALF),
    "half a run": (lambda client: client.run(HALF).trace(), WITH_HALF),
    "half a step": (lambda client: client.run("r").step_trace(HALF), WITH_HALF),
    "half a cursor": (lambda client: client.runs(cursor=HALF), WITH_HALF),
    "no change": (lambda client: client.live_runs(after=-1), "after must be the number of a change"),
    "half a flow": (lambda client: client.runs(flow_id=HALF), WITH_HALF),
    "half a flow file": (push("s", HALF), WITH_HALF),
    "half a slug that is pushed": (push(HALF), WITH_HALF),
    **{f"push {slug!r}": (push(slug), "a name of an org, a project or") for slug in ("", ".", "..")},
    **{f"production {version!r}": (set_production(version), "from 1 on") for version in NO_VERSIONS},
    "file name": (lambda client: client.import_run("run.jsonl"), "open for bytes"),
    "file of text": (lambda client: client.import_run(io.StringIO("{}")), "open for bytes"),
}


@pytest.mark.parametrize("side", [Blocking], indirect=True)
@pytest.mark.parametrize(("ask", "says"), REFUSED.values(), ids=REFUSED)
def test_an_argument_that_cannot_be_sent_is_refused_before_any_request(
    server: ScriptedServer, side: Side, ask: Ask, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        side.value(ask(side.client(server.url)))
    assert type(refused.value) is ValueError
    str(refused.value).encode()
    assert server.requests == []


@pytest.mark.parametrize("side", [Blocking], indirect=True)
def test_a_handler_that_cannot_be_called_is_of_a_wrong_type(server: ScriptedServer, side: Side) -> None:
    with pytest.raises(TypeError, match="tool_handler must be a function"):
        side.value(execute(tool_handler="weather")(side.client(server.url)))
    assert server.requests == []

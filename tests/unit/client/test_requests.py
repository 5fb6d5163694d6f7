"""Each method of the client describes the right request, and what cannot be sent is refused before any is."""

import io
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from runglass.client.api.admin import Management
from runglass.client.core import requests, run_requests
from runglass.client.core.requests import FlowAddress
from runglass.wire.run_api import Version
from tests.unit.client.scripted import TOOLS, ScriptedServer
from tests.unit.client.sides import Blocking, Side

FLOW = FlowAddress("acme", "school", "grade-3")
RUN = "/flow-runs/r1"


def named(path: str | None = None, **given: Any) -> str:
    nothing = {"org": None, "project": None, "slug": None, "default_org": None, "default_project": None}
    return str(requests.flow_address(path, **{**nothing, **given}))


rerun = partial(run_requests.rerun, RUN)
step_trace = partial(requests.step_trace, RUN, "s1", attempt="latest", loop_index=None)
outline = partial(requests.outline, RUN, after=None, limit=None, seq=None)


def execution(version: Version = "production", **given: Any) -> requests.RequestSpec[Any]:
    return run_requests.execution(FLOW, version=version, **given).call()


def test_a_flow_is_named_by_path_by_slug_or_by_parts() -> None:
    assert named("acme/school/grade-3") == "acme/school/grade-3"
    assert named("grade-3", default_org="acme", default_project="school") == "acme/school/grade-3"
    assert named(org="acme", project="school", slug="grade-3") == "acme/school/grade-3"
    assert named(slug="grade-3", project="own", default_org="acme", default_project="x") == "acme/own/grade-3"


@pytest.mark.parametrize(
    ("path", "given", "says"),
    [
        ("grade-3", {}, "'grade-3' has no org and project"),
        (None, {"org": "acme", "project": "school"}, "has no slug"),
        ("school/grade-3", {}, "has 2 parts"),
        ("", {"default_org": "acme", "default_project": "school"}, "slug may not be ''"),
        ("acme//grade-3", {}, "project may not be ''"),
        ("acme/../grade-3", {}, "project may not be '..'"),
        ("acme/school/grade-3", {"slug": "grade-3"}, "named twice"),
    ],
)
def test_a_flow_that_is_not_named_in_full_says_what_is_missing(
    path: str | None, given: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        named(path, **given)


def test_parts_of_a_path_are_quoted_whatever_they_hold() -> None:
    wild = "a/b?c#d%2F e;ü.~"
    quoted = "a%2Fb%3Fc%23d%252F%20e%3B%C3%BC.~"
    assert FlowAddress(wild, wild, wild).path() == f"/seq/{quoted}/{quoted}/{quoted}"
    assert requests.run_path(wild) == f"/flow-runs/{quoted}"
    step = requests.step_trace(RUN, wild, attempt="latest", loop_index=None)
    assert step.path == f"{RUN}/steps/{quoted}/trace"
    assert requests.diff(RUN, wild, all=False).path == f"{RUN}/diff/{quoted}"


@pytest.mark.parametrize("part", ["", ".", ".."])
def test_parts_that_would_change_the_path_are_refused(part: str) -> None:
    with pytest.raises(ValueError, match="execution_id may not be"):
        requests.run_path(part)
    with pytest.raises(ValueError, match="step_id may not be"):
        requests.step_trace(RUN, part, attempt="latest", loop_index=None)
    with pytest.raises(ValueError, match="other may not be"):
        requests.diff(RUN, part, all=False)
    with pytest.raises(ValueError, match="org may not be"):
        FlowAddress(part, "school", "grade-3").path()


def test_a_run_is_named_by_a_string_or_a_uuid() -> None:
    run = uuid.uuid4()
    assert requests.run_path(run) == requests.run_path(str(run)) == f"/flow-runs/{run}"
    assert requests.diff(RUN, run, all=False).target == f"/flow-runs/r1/diff/{run}"


def test_a_version_is_part_of_the_path_and_nothing_is_sent_that_was_not_given() -> None:
    suffixes: list[tuple[Version, str]] = [("production", ""), ("draft", "/v0"), (0, "/v0"), (7, "/v7")]
    for version, suffix in suffixes:
        call = execution(version)
        assert call.target == f"/seq/acme/school/grade-3{suffix}/execute"
        assert (call.body, call.headers["Content-Type"]) == (b"{}", "application/json")
    bodies = [rerun().body, rerun(version="production").body, rerun(version=7).body]
    assert bodies == [b"{}", b'{"version":"production"}', b'{"version":7}']


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ({}, "attempt=latest"),
        ({"attempt": "all"}, "attempt=all"),
        ({"attempt": 2}, "attempt=2"),
        ({"loop_index": 0}, "attempt=latest&loop_index=0"),
        ({"loop_index": (3, 1)}, "attempt=latest&loop_index=3,1"),
    ],
)
def test_attempt_and_loop_index_are_asked_for(given: dict[str, Any], query: str) -> None:
    assert step_trace(**given).target == f"/flow-runs/r1/steps/s1/trace?{query}"


@pytest.mark.parametrize(
    ("ask", "name", "impossible"),
    [
        (execution, "version", (True, False, -1, 1.0, "latest", "v1", "1", None)),
        (rerun, "version", (True, -1, 1.0, "draft", "1", None)),
        (outline, "after", (-1, True)),
        (outline, "limit", (0, True)),
        (outline, "seq", (-1, "7")),
        (step_trace, "attempt", (0, -1, True, "first", "1", 1.0, None)),
        (step_trace, "loop_index", (-1, True, False, "0", (), [], (0, -1), (0, "1"), (True,), 1.0, {1: 1})),
    ],
)
def test_impossible_values_are_refused(
    ask: Callable[..., object], name: str, impossible: Sequence[Any]
) -> None:
    for value in impossible:
        with pytest.raises(ValueError, match=f"{name} must be"):
            ask(**{name: value})


def test_runs_of_a_time_and_of_a_flow_by_its_slug() -> None:
    since = datetime(2026, 1, 2, 3, tzinfo=UTC)
    asked = partial(requests.runs, status=None, limit=5, cursor=None)
    target = asked(flow_id=None, flow="f", since=since, until="2026-02-01").target
    assert target == "/flow-runs?flow=f&since=2026-01-02T03%3A00%3A00%2B00%3A00&until=2026-02-01&limit=5"
    with pytest.raises(ValueError, match="since 2026-01-02 03:00:00 has no time zone"):
        asked(flow_id=None, since=since.replace(tzinfo=None))
    with pytest.raises(ValueError, match="flow and flow_id exclude each other"):
        asked(flow_id="f", flow="f")


HALF = "\ud800"
"""Half of a surrogate pair."""
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
    "half a name": (execute(parameters={HALF: 1}), r'parameters\["�"\] may not be'),
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
    "parent of two lines": (execute(trace_context={"traceparent": "a\r\nb"}), "no W3C traceparent"),
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

"""Each method of the client describes the right request, and refuses wrong arguments before any is sent."""

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from runglass.client.core import requests, run_requests
from runglass.client.core.requests import FlowAddress
from runglass.wire.run_api import Version

FLOW = FlowAddress("acme", "school", "grade-3")
RUN = "/flow-runs/r1"


def named(path: str | None = None, **given: Any) -> str:
    nothing = {"org": None, "project": None, "slug": None, "default_org": None, "default_project": None}
    return str(requests.flow_address(path, **{**nothing, **given}))


rerun = partial(run_requests.rerun, RUN)


def execute(version: Version = "production", **given: Any) -> requests.RequestSpec[Any]:
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
        call = execute(version)
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


def step_trace(**given: Any) -> requests.RequestSpec[Any]:
    return requests.step_trace(RUN, "s1", **{"attempt": "latest", "loop_index": None, **given})


@pytest.mark.parametrize(
    ("ask", "name", "impossible"),
    [
        (execute, "version", (True, False, -1, 1.0, "latest", "v1", "1", None)),
        (rerun, "version", (True, -1, 1.0, "draft", "1", None)),
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


@pytest.mark.parametrize("given", [{"after": -1}, {"limit": 0}, {"limit": True}, {"seq": "7"}])
def test_impossible_pages_of_an_outline_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be a whole number from"):
        requests.outline(RUN, **{"after": None, "limit": None, "seq": None, **given})


def test_runs_of_a_time_and_of_a_flow_by_its_slug() -> None:
    since = datetime(2026, 1, 2, 3, tzinfo=UTC)
    asked = partial(requests.runs, status=None, limit=5, cursor=None)
    target = asked(flow_id=None, flow="f", since=since, until="2026-02-01").target
    assert target == "/flow-runs?flow=f&since=2026-01-02T03%3A00%3A00%2B00%3A00&until=2026-02-01&limit=5"
    with pytest.raises(ValueError, match="since 2026-01-02 03:00:00 has no time zone"):
        asked(flow_id=None, since=since.replace(tzinfo=None))
    with pytest.raises(ValueError, match="flow and flow_id exclude each other"):
        asked(flow_id="f", flow="f")

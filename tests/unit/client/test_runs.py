"""Jobs and the end of a run, lists of runs page by page, runs as files, and managing flows."""

import copy
import uuid
from typing import Any

import msgspec
import pytest

from runglass import APIConnectionError, APITimeoutError, Client, FlowExecutionError
from runglass.client.api.admin import Management
from runglass.wire.sse import PING
from tests.unit.client.scripted import (
    CHUNKED,
    EVENT_STREAM,
    FRAMES,
    LAST_CHUNK,
    Scene,
    ScriptedServer,
    answers,
    drips,
    event,
    flow,
    hangs_up,
    in_chunk,
    page,
    refuses,
    sends,
    waits,
)
from tests.unit.client.sides import RUN, Blocking, Side

ACCEPTED = {"executionId": RUN, "status": "pending", "flowId": "f", "blockCount": 1}


def state(status: str, **more: object) -> Scene:
    return answers({"executionId": RUN, "status": status, "result": None, "error": None, **more})


def test_a_job_is_queued_and_waited_for(server: ScriptedServer, side: Side) -> None:
    done = state("completed", result={"text": "x"})
    server.plays(answers(ACCEPTED, status=202), state("pending"), state("running"), done)
    picture = {"url": "https://host/a.png", "mimeType": "image/png"}
    queued = side.value(flow(side, server).execute_async(message="hi", version=2, attachments=[picture]))
    assert (queued.execution_id, queued.run.execution_id) == (RUN, RUN)
    assert side.value(queued.wait(poll_interval=3)) == {"text": "x"}
    assert side.waits == [3, 3]
    assert side.value(queued.poll()).status == "completed"
    post, get, *_ = server.requests
    assert (post.method, post.target) == ("POST", "/api/v1/seq/a/p/s/v2/jobs")
    assert msgspec.json.decode(post.body) == {"message": "hi", "attachments": [picture]}
    assert str(uuid.UUID(post.headers["idempotency-key"])) == post.headers["idempotency-key"]
    assert (get.method, get.target) == ("GET", f"/api/v1/seq/a/p/s/v2/jobs/{RUN}")


def test_waiting_for_a_job_has_an_end(server: ScriptedServer, side: Side) -> None:
    server.plays(answers(ACCEPTED, status=202), state("running"))
    queued = side.value(flow(side, server).execute_async())
    with pytest.raises(APITimeoutError):
        side.value(queued.wait(0.05))
    assert all(0 <= wait <= 0.05 for wait in side.waits)
    with pytest.raises(ValueError, match="timeout must be"):
        side.value(queued.wait(poll_interval=0))
    for error, says in (("cancelled", f"job '{RUN}' was cancelled"), ("no", f"job '{RUN}' failed: no")):
        server.plays(state("failed", error=error))
        with pytest.raises(FlowExecutionError, match=says):
            side.value(queued.wait())


def test_the_end_of_a_run_is_told_by_its_events(server: ScriptedServer, side: Side) -> None:
    begun = {"runId": RUN, "flowId": "f", "stepCount": 4, "triggerType": "job", "version": 1}
    ends = [
        event(1, "run_started", **begun, at="2026-01-01T00:00:00.000Z"),
        event(2, "step_paused", stepIndex=1),
        event(3, "flow_failed", runId=RUN, error={"code": "X"}, at="2026-01-01T00:00:01.250Z"),
    ]
    server.plays(sends(b"".join(ends[:2])), sends(b"".join(ends)))
    summary = side.value(side.client(server.url).run(RUN).wait())
    assert (summary.id, summary.flow_id, summary.status, summary.trigger_type) == ("r1", "f", "failed", "job")
    assert (summary.duration_ms, summary.step_count) == (1250, 4)
    assert [each.headers.get("last-event-id") for each in server.requests] == [None, "2"]


GOES_ON = {"silent": waits(sends(FRAMES[0])), "pings": drips(PING * 1000, EVENT_STREAM)}


@pytest.mark.parametrize("goes_on", GOES_ON.values(), ids=GOES_ON)
def test_waiting_for_a_run_is_bounded_and_frees_its_connection(
    server: ScriptedServer, side: Side, goes_on: Scene
) -> None:
    server.plays(goes_on)
    with pytest.raises(APITimeoutError, match=r"did not end within 0.2 s"):
        side.value(side.client(server.url).run(RUN).wait(0.2))
    server.until_left()


def test_the_runs_of_a_flow_come_page_by_page(server: ScriptedServer, side: Side) -> None:
    server.plays(
        answers({"id": "f", "slug": "s", "versions": []}), page("c", "b", cursor="b&"), page("a"), page()
    )
    of_flow = flow(side, server)
    runs = side.following(of_flow.runs(status="completed", limit=2))
    assert server.requests == []
    assert next(runs).id == "c"
    assert len(server.requests) == 2
    assert [run.id for run in runs] == ["b", "a"]
    assert side.events(of_flow.runs()) == []
    assert server.targets("") == [
        "/flows/a/p/s",
        "/flow-runs?flow_id=f&status=completed&limit=2",
        "/flow-runs?flow_id=f&status=completed&limit=2&cursor=b%26",
        "/flow-runs?flow_id=f&limit=20",
    ]


def test_a_loop_walks_all_pages_with_the_same_filter_and_from_its_start_each_time(
    server: ScriptedServer, side: Side
) -> None:
    pages = [page("r5", "r4", cursor="c1"), page("r3", cursor="c2"), page()]
    server.plays(*pages, *pages)
    client = side.client(server.url)
    for _ in range(2):
        ids = [run.id for run in side.events(client.runs(status="failed", limit=2, cursor="c0"))]
        assert ids == ["r5", "r4", "r3"]
    assert server.targets("/flow-runs") == 2 * [
        "?status=failed&limit=2&cursor=c0",
        "?status=failed&limit=2&cursor=c1",
        "?status=failed&limit=2&cursor=c2",
    ]


def test_a_copy_of_a_page_has_its_runs_and_says_that_it_cannot_ask_for_more(server: ScriptedServer) -> None:
    server.plays(page("r2", cursor="c"))
    with Client("nk_test", base_url=server.url) as client:
        runs = iter(copy.copy(client.runs()))
    assert next(runs).id == "r2"
    with pytest.raises(RuntimeError, match="cursor="):
        next(runs)


SESSION = "0198c0de-0000-7000-8000-00000000000a"


def executions(*ids: str, cursor: str | None) -> Scene:
    """A page of a session."""
    about: dict[str, Any] = {"flowId": "f", "slug": "s", "triggerType": "execute", "status": "completed"}
    about |= {"traceCaptureMode": "full", "snapshotsAvailable": True, "steps": []}
    runs = [{"executionId": each, **about} for each in ids]
    return answers({"sessionId": SESSION, "executions": runs, "nextCursor": cursor})


def test_the_runs_of_a_session_come_page_by_page(server: ScriptedServer, side: Side) -> None:
    server.plays(executions("r1", "r2", cursor="c2"), executions("r3", cursor=None))
    runs = side.following(side.client(server.url).session(SESSION, limit=2))
    assert [next(runs).execution_id, next(runs).execution_id] == ["r1", "r2"]
    assert len(server.requests) == 1, "the next page is asked for when the loop comes to it"
    assert [run.execution_id for run in runs] == ["r3"]
    assert server.targets(f"/seq/sessions/{SESSION}") == ["?limit=2", "?limit=2&cursor=c2"]


def test_an_export_is_asked_for_again_where_nothing_of_it_came(server: ScriptedServer, side: Side) -> None:
    whole = in_chunk(b"one\n") + in_chunk(b"two\n") + LAST_CHUNK
    server.plays(hangs_up, refuses(503, "UNAVAILABLE"), sends(whole, CHUNKED))
    assert b"".join(side.events(side.client(server.url).run(RUN).export("jsonl"))) == b"one\ntwo\n"
    assert server.targets("/flow-runs") == 3 * [f"/{RUN}/export?format=jsonl"]
    server.plays(answers(b""))
    assert side.events(side.client(server.url).run(RUN).export()) == []
    server.plays(hangs_up)
    with pytest.raises(APIConnectionError, match="failed after 3 attempts"):
        side.events(side.client(server.url).run(RUN).export())


def test_an_export_that_breaks_off_is_an_error_and_not_begun_again(
    server: ScriptedServer, side: Side
) -> None:
    server.plays(sends(in_chunk(b"one\n"), CHUNKED))
    parts = side.following(side.client(server.url).run(RUN).export())
    assert next(parts) == b"one\n"
    with pytest.raises(APIConnectionError, match="export"):
        next(parts)
    assert len(server.requests) == 1


@pytest.mark.parametrize("side", [Blocking], indirect=True)
def test_a_flow_is_managed_under_its_quoted_name_and_tried_again_as_that_sets_a_state(
    server: ScriptedServer, side: Side
) -> None:
    server.plays(answers({}, status=502), answers({"version": 1}))
    assert Management(side.client(server.url)).publish("a b", "c/d", "é") == 1
    assert server.targets("/flows") == 2 * ["/a%20b/c%2Fd/%C3%A9/publish"]

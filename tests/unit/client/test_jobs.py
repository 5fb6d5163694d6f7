"""Jobs, the end of a run, its cancelling, and the runs of a flow."""

import uuid
from typing import Any

import msgspec
import pytest

from runglass import APITimeoutError
from tests.unit.client.recording import FRAMES, RESULT, event, page, stream
from tests.unit.client.scripted import EVENT_STREAM, Exchange, Scene, ScriptedServer, answers, sends
from tests.unit.client.sides import RUN, Side

ACCEPTED = {"executionId": RUN, "status": "pending", "flowId": "f", "blockCount": 1}


def state(status: str, **more: object) -> Scene:
    return answers({"executionId": RUN, "status": status, "result": None, "error": None, **more})


def job(side: Side, server: ScriptedServer, **given: Any) -> Any:
    return side.value(side.client(server.url).flow("a/p/s").execute_async(**given))


def test_a_job_is_queued_and_waited_for(server: ScriptedServer, side: Side) -> None:
    done = state("completed", result={"text": "x"})
    server.plays(answers(ACCEPTED, status=202), state("pending"), state("running"), done)
    queued = job(
        side,
        server,
        message="hi",
        version=2,
        attachments=[{"url": "https://host/a.png", "mimeType": "image/png"}],
    )
    assert (queued.execution_id, queued.run.execution_id) == (RUN, RUN)
    assert side.value(queued.wait(poll_interval=3)) == {"text": "x"}
    assert side.waits == [3, 3]
    assert side.value(queued.poll()).status == "completed"
    post, get, *_ = server.requests
    assert (post.method, post.target) == ("POST", "/api/v1/seq/a/p/s/v2/jobs")
    assert msgspec.json.decode(post.body) == {
        "message": "hi",
        "attachments": [{"url": "https://host/a.png", "mimeType": "image/png"}],
    }
    assert str(uuid.UUID(post.headers["idempotency-key"])) == post.headers["idempotency-key"]
    assert (get.method, get.target) == ("GET", f"/api/v1/seq/a/p/s/v2/jobs/{RUN}")


def test_waiting_for_a_job_has_an_end(server: ScriptedServer, side: Side) -> None:
    server.plays(answers(ACCEPTED, status=202), state("running"))
    queued = job(side, server)
    with pytest.raises(APITimeoutError):
        side.value(queued.wait(0.05))
    assert all(0 <= wait <= 0.05 for wait in side.waits)
    with pytest.raises(ValueError, match="timeout must be"):
        side.value(queued.wait(poll_interval=0))


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


@pytest.mark.parametrize("pinging", [False, True])
def test_waiting_for_a_run_is_bounded_and_frees_its_connection(
    server: ScriptedServer, side: Side, pinging: bool
) -> None:
    async def goes_on(exchange: Exchange) -> None:
        await exchange.start(200, EVENT_STREAM)
        await exchange.send(FRAMES[0])
        if pinging:
            await exchange.drip(b": ping\n\n" * 1000)
        else:
            await exchange.hung_up()

    server.plays(goes_on)
    with pytest.raises(APITimeoutError, match=r"did not end within 0.2 s"):
        side.value(side.client(server.url).run(RUN).wait(0.2))
    server.until_left()


def test_the_runs_of_a_flow_come_page_by_page(server: ScriptedServer, side: Side) -> None:
    server.plays(
        answers({"id": "f", "slug": "s", "versions": []}),
        page("c", "b", cursor="b&"),
        page("a"),
        page(),
    )
    flow = side.client(server.url).flow("a/p/s")
    runs = side.following(flow.runs(status="completed", limit=2))
    assert server.requests == []
    assert next(runs).id == "c"
    assert len(server.requests) == 2
    assert [run.id for run in runs] == ["b", "a"]
    assert side.events(flow.runs()) == []
    assert [each.target.removeprefix("/api/v1") for each in server.requests] == [
        "/flows/a/p/s",
        "/flow-runs?flow_id=f&status=completed&limit=2",
        "/flow-runs?flow_id=f&status=completed&limit=2&cursor=b%26",
        "/flow-runs?flow_id=f&limit=20",
    ]


def test_a_session_tags_calls_and_a_call_may_name_another(server: ScriptedServer, side: Side) -> None:
    own, other = uuid.uuid4(), uuid.uuid4()
    done = answers(RESULT)
    server.plays(done, done, answers(ACCEPTED, status=202), sends(stream()), done)
    flow = side.client(server.url, session_id=own).flow("a/p/s")
    side.value(flow.execute())
    side.value(flow.execute(session_id=str(other).upper()))
    side.value(flow.execute_async(session_id=other))
    side.events(flow.events(session_id=other))
    side.value(side.client(server.url).flow("a/p/s").execute())
    sessions = [each.headers.get("x-session-id") for each in server.requests]
    assert sessions == [str(own), *[str(other)] * 3, None]

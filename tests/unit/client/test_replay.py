"""Which answer a run of a session gives, and when it gives none, by files as the server writes them."""

from typing import Any

import msgspec
import pytest

from runglass import FlowExecutionError, Replay, ReplayMiss
from runglass.client.core.requests import FlowAddress
from runglass.client.core.run_requests import execution
from runglass.wire.run_api import CompletedResult

RUN, SESSION = "0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-00000000000a"


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNGLASS_REPLAY", "1")


def event(kind: str, **fields: object) -> dict[str, Any]:
    return {"eventType": kind, "runId": RUN, **fields}


def replay_of(*events: dict[str, Any], capture: str = "full") -> Replay:
    """Of one run without input, with these events behind those of its start."""
    header = {"runId": RUN, "version": 1, "capture": capture, "triggerType": "api", "sessionId": SESSION}
    started = event("run_started", flowId="f", stepCount=2, triggerType="api", version=1)
    told = [started, event("run_input", inputs={}), *events]
    lines: list[dict[str, Any]] = [{**header, "flow": {"id": "f", "slug": "s"}}]
    lines += [{"executionId": RUN, "seq": seq, **event} for seq, event in enumerate(told, 1)]
    replay = Replay(SESSION, match="input")
    replay.add(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return replay


def answer(replay: Replay, **options: Any) -> object:
    return replay.answer(execution(FlowAddress("o", "p", "s"), **options).call())


def test_a_result_of_nothing_is_a_result() -> None:
    replay = replay_of(event("flow_completed"))
    facts: dict[str, Any] = {"flow_id": "f", "block_count": 2, "execution_id": RUN, "session_id": SESSION}
    assert answer(replay) == CompletedResult(result=None, **facts)
    assert replay.left_over == []


def test_a_cancelled_run_raises_what_its_caller_got() -> None:
    with pytest.raises(FlowExecutionError, match="the run was cancelled: by nk_x") as raised:
        answer(replay_of(event("flow_cancelled", reason="by nk_x")))
    assert (raised.value.code, raised.value.execution_id) == ("STEP_FAILED", RUN)


@pytest.mark.parametrize(
    ("last", "capture", "why"),
    [
        (event("step_started", stepId="a", stepIndex=0, attempt=1), "full", "had not come to an answer"),
        (event("step_paused", stepIndex=0), "full", "had not come to an answer"),
        (event("flow_completed", truncated=True), "full", "too large to be kept whole"),
        (event("flow_failed", error={"code": "X"}), "off", "not kept, or are removed"),
        (event("flow_completed", result={"key": "[redacted]"}), "redacted", "its outputs are redacted"),
    ],
)
def test_what_is_not_all_there_is_no_answer(last: dict[str, Any], capture: str, why: str) -> None:
    replay = replay_of(last, capture=capture)
    with pytest.raises(ReplayMiss, match=why):
        answer(replay)
    assert [each.execution_id for each in replay.left_over] == [RUN]


@pytest.mark.parametrize(
    ("overrides", "is_same"),
    [
        ({"a": {"settings.extra_headers": {"authorization": "other"}, "model": "echo"}}, True),
        ({"a": {"settings": {"extra_headers": {"authorization": "other"}}, "model": "echo"}}, False),
        ({"a": {"model": "echo"}}, True),
        ({"a": {"model": "other"}}, False),
    ],
)
def test_overrides_are_compared_without_headers_which_no_run_keeps(
    overrides: dict[str, dict[str, Any]], is_same: bool
) -> None:
    kept = {"a": {"settings.extra_headers": {"authorization": "…"}, "model": "echo"}}
    replay = replay_of(
        event("overrides_applied", overridden=["a.model"], blockOverrides=kept),
        event("flow_completed", result={"n": 1}),
    )
    if is_same:
        assert answer(replay, block_overrides=overrides)
    else:
        with pytest.raises(ReplayMiss, match=r"differs at `blockOverrides\.a") as raised:
            answer(replay, block_overrides=overrides)
        assert "authorization" not in str(raised.value)

"""A recorded run goes to a file and comes back, and its outline adds up to its totals."""

from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runglass.errors import RunFileError
from runglass.log.events import FlowCompleted, RunInput, encode_event
from runglass.log.span_state import SpanState
from runglass.log.trace import StepTrace
from runglass.outlines.outline import tree_rows
from runglass.run_files.header import FlowOfRun, RunHeader
from runglass.run_files.imported_log import ImportedLog
from runglass.run_files.perfetto import PerfettoWriter
from runglass.store.sqlite.database_file import check
from runglass.store.sqlite.store import SqliteStore
from tests.recorded_spans import END, Recording, asked, id_of, raw, span
from tests.unit.recording import emitted
from tests.unit.recording.test_recordings import BEGAN_NS, SETTLE_S, open_house
from tests.unit.recording.test_recordings import span as received

HEADER = RunHeader(
    run_id="r", version=0, capture="redacted", trigger_type="recorded", flow=FlowOfRun(id="f", slug="shop")
)


def recorded(*spans: SpanState) -> Recording:
    recording = Recording(spans)
    recording.add(RunInput(execution_id="r", at=END["at"], inputs=raw({"text": "hi"})))
    recording.add(FlowCompleted(**END))
    return recording


WHOLE = recorded(
    SpanState(span_id=id_of(3), kind="llm", output=raw({"text": "late"})),
    span(1, start=0, end=90, name="agent", session="one", input=raw({"text": "hi"}), kind="agent"),
    span(2, 1, start=5, end=None, name="chat"),
    span(3, 1, start=7.0005, end=8, name="chat", attributes=raw({"a.b": {"c": 1}, "n": 2}), **asked(3, 4)),
    span(
        2,
        1,
        name="chat",
        start=5,
        end=60,
        status="error",
        error=raw({"code": "E", "message": "bad"}),
        kind="tool",
    ),
)


def take(events: list[bytes], *, at_once: int = 2) -> tuple[ImportedLog, dict[int, StepTrace]]:
    log = ImportedLog(HEADER, most_values=1000)
    steps: dict[int, StepTrace] = {}
    for first in range(0, len(events), at_once):
        steps |= dict(log.take(events[first : first + at_once]))
    return log, steps


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_the_log_of_a_recorded_run_imports_again(at_once: int) -> None:
    log, steps = take(list(map(encode_event, WHOLE.events)), at_once=at_once)
    assert log.summary == WHOLE.summary
    assert steps == WHOLE.steps


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"stepId": "other"}, "not those that its span has"),
        ({"loopPath": [7]}, "not those that its span has"),
        ({"loopPath": None}, "not those that its span has"),
        ({"span": {"spanId": "1", "name": "agent"}}, "is not 16 hexadecimal digits"),
        ({"span": {"spanId": id_of(1), "parentSpanId": "X" * 16}}, "is not 16 hexadecimal digits"),
        ({"span": {"spanId": id_of(1), "startTimeUnixNano": "-1"}}, "no number of nanoseconds"),
        ({"span": {"spanId": id_of(1), "kind": "magic"}}, "wrong type"),
        ({"span": {"spanId": id_of(1), "costUsd": "NaN"}}, "not an amount"),
        ({"eventType": "step_skipped", "reason": "no"}, "of no kind that a recorded run has"),
    ],
)
def test_a_span_that_there_cannot_be_is_refused(change: dict[str, Any], problem: str) -> None:
    events = list(map(encode_event, WHOLE.events))
    event = msgspec.json.decode(events[2]) | change
    events[2] = msgspec.json.encode({name: value for name, value in event.items() if value is not None})
    with pytest.raises(RunFileError, match=problem):
        take(events)


def test_in_perfetto_a_span_that_outlives_what_it_is_in_has_its_own_time() -> None:
    outliving = recorded(
        span(1, start=0.9, end=32, name="top"),
        span(2, 1, start=10, end=90, name="late"),
        span(3, 2, start=20, end=80, name="inside"),
        span(4, 1, start=12, end=30, name="beside"),
        span(5, 4, start=5, end=20, name="early"),
    )
    writer, outline = PerfettoWriter(outliving.summary), outliving.outline()
    rows = [(row, None) for row in tree_rows(outline, 0, outline.row_count)]
    events = msgspec.json.decode(writer.opening() + writer.rows(rows) + writer.closing())["traceEvents"]
    began = events[2]["ts"]
    open_slices: dict[int, list[tuple[str, int]]] = {}
    told = {}
    # As its viewer reads them: what ends is what began last on the track.
    for event in sorted((each for each in events if each["ph"] in "BE"), key=itemgetter("ts")):
        at_ms, track = (event["ts"] - began) // 1000, open_slices.setdefault(event["tid"], [])
        if event["ph"] == "B":
            track.append((event["name"], at_ms))
        else:
            name, since = track.pop()
            told[name] = since, at_ms
    assert told == {
        "run": (0, 90),
        "top": (0, 32),
        "late": (10, 90),
        "inside": (20, 80),
        "beside": (12, 30),
        "early": (5, 20),
    }


async def test_a_store_with_a_recorded_run_is_sound_and_its_log_imports_again(tmp_path: Path) -> None:
    """One whose session came late, and whose first span is known by a log before it came."""
    log = emitted.log("gen_ai.user.message", {"content": "hi"}, span_id=id_of(3), at_ns=BEGAN_NS)
    chat = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5, "session.id": "late"}
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as store:
        house = await open_house(store)
        assert await house.record(log) == []
        assert [step.step_id for step in (await house.trace()).steps] == ["not_received"]
        for each in (received(2, 1), received(3, 1, attributes=chat), received(1)):
            assert await house.record(each) == []
        assert [step.step_id for step in (await house.trace()).steps] == ["work", "work", "work"]
        await house.time_passes(SETTLE_S)
        run, trace = await house.run(), await house.trace()
        stored = [data for _, data in await store.events(run.no, after=0, limit_bytes=1 << 20)]
    assert run.session_id is not None
    assert (run.status, run.session_id) == ("completed", trace.flow_run.session_id)
    assert check(tmp_path / "db", every_run=True, tell=lambda *_: None).problems == []
    flow = FlowOfRun(id=run.flow_id, slug="otel")
    header = msgspec.structs.replace(HEADER, run_id=run.id, session_id=run.session_id, flow=flow)
    imported = ImportedLog(header, most_values=1000)
    imported.take(stored)
    assert imported.summary == msgspec.structs.replace(trace.flow_run, input=None, result=None)

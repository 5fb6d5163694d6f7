"""The input and the result of a run, which its log has and its stored summary has not."""

from typing import Any

import msgspec

from runglass.log.events import RunInput, decode_event, event_type_of
from runglass.log.fold import content_of_run
from runglass.store.base import Store, decoding
from runglass.store.records import OpenedTrace, RunRecord

_any_json = msgspec.json.Decoder(msgspec.Raw)


async def with_content(store: Store, run: RunRecord) -> OpenedTrace:
    """The run and those of its events, no step. Raises StoreError, RunPurged."""
    content = []
    for seq in run.content_seqs:
        if 0 < seq <= run.head:
            content += [data for _, data in await store.events(run.no, after=seq - 1, limit_bytes=1)]
    return OpenedTrace(run, [], content)


def whole_summary(opened: OpenedTrace) -> bytes:
    """The run's `flowRun` in a trace: its summary with `input` and `result`. Raises RunUnreadable."""
    summary = opened.run.summary
    with decoding(opened.run.id):
        _any_json.decode(summary)
        content: dict[str, Any] = {}
        for data in opened.content:
            if event_type_of(data) in ("run_input", "flow_completed"):
                content |= content_of_run(decode_event(data))
        members = b"".join(b',"%b":%b' % (name.encode(), value) for name, value in content.items())
        return summary[:-1] + members + b"}" if members else summary


def input_of(opened: OpenedTrace) -> RunInput | None:
    """The event with the input of the run, None where it has none. Raises RunUnreadable."""
    with decoding(opened.run.id):
        events = [decode_event(data) for data in opened.content if event_type_of(data) == "run_input"]
        return next((event for event in events if isinstance(event, RunInput)), None)

"""The server's fold beside one that was written from the specification alone: they agree on every log.

`trace == fold(events)` with the same fold on both sides holds for a wrong one too. Logs come from a generator
that knows nothing of either; those of the engine are checked where runs die, ask models and have a budget.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given

from runglass.log.content import strip_event
from runglass.log.events import EVENT_TYPES, StreamEvent, UnknownEvent, decode_event
from runglass.log.fold import TraceFold
from tests.examples import examples
from tests.reference_fold import JsonObject, reference_trace
from tests.run_logs import UNKNOWN, run_logs


def canonical(trace: Any) -> str:
    """Text to compare by, since `1 == True` in Python and not in JSON."""
    return json.dumps(trace, sort_keys=True, indent=1)


def check_agreement(events: Sequence[JsonObject]) -> None:
    """Whatever the log has come to: a trace can be read after any of its events."""
    state = TraceFold()
    for number, event in enumerate(events, start=1):
        state.apply(decode_event(msgspec.json.encode(event)))
        folded = json.loads(msgspec.json.encode(state.trace()))
        assert canonical(folded) == canonical(reference_trace(list(events[:number]))), event


def check_agreement_on(events: Sequence[StreamEvent]) -> None:
    """Both folds agree on a log of the engine."""
    check_agreement([json.loads(msgspec.json.encode(event)) for event in events])


def test_both_folds_agree_on_every_log() -> None:
    """Every known type of event is met, and a type that nobody knows changes nothing."""
    met: set[str] = set()

    @examples(200, of=400)
    @given(events=run_logs())
    def check(events: list[JsonObject]) -> None:
        for event in events:
            known = not isinstance(decode_event(json.dumps(event).encode()), UnknownEvent)
            assert known == (event["eventType"] != UNKNOWN), "the generated event has the shape of its type"
            met.add(event["eventType"])
        check_agreement(events)

    check()
    # Recorded runs have no other event of a step: their sums have a reference in `test_span_tree.py`.
    assert met == {*EVENT_TYPES, UNKNOWN} - {"step_recorded"}


@examples(25, of=100)
@given(events=run_logs())
def test_both_folds_agree_when_the_content_is_gone(events: list[JsonObject]) -> None:
    check_agreement([json.loads(strip_event(json.dumps(event).encode())) for event in events])

"""Spans of our own that come back: which run of ours a span tells of, and what is left of it then.

A run that was executed here is there already, so its spans are not recorded a second time. Where another
program called the flow, its trace has the run as one step, which points to the run and tells no usage: that
is counted where the run is.
"""

import uuid

from runglass.recording.received import ReceivedSpan

SCOPE = "runglass"
RUN_ID = "runglass.run.id"
"""Of each span of a run: its id."""
STARTED_BY_CALLER = "runglass.trigger"
"""Of the span of a run as a whole, and of no other."""

_COUNTED_ELSEWHERE = ("gen_ai.usage.", "runglass.cost", "runglass.input", "runglass.output")


def own_run_id(span: ReceivedSpan) -> str | None:
    """The id of the run that a Runglass tells of with this span, None for a span of any other program.

    Whoever asks finds out whether the project has executed that run.
    """
    if span.scope != SCOPE or not isinstance(run_id := span.attributes.get(RUN_ID), str):
        return None
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        return None


def link_to_run(span: ReceivedSpan) -> ReceivedSpan | None:
    """What the trace of a caller has of a run of ours: its span, without usage and content.

    None for a span inside of the run, and for a run that no span called.
    """
    if span.parent_id is None or STARTED_BY_CALLER not in span.attributes:
        return None
    kept = {name: value for name, value in span.attributes.items() if not name.startswith(_COUNTED_ELSEWHERE)}
    return span._replace(attributes=kept, events=[])

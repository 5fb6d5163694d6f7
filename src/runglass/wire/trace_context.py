"""The W3C headers `traceparent` and `tracestate`, read as the recommendation says.

The trace of a run names the caller's trace in which it was started. Tracing must never make a call fail, so a
malformed header counts as not sent.
"""

import re

from runglass.wire.run_api import TraceContext

MAX_STATE = 512
"""Characters of `tracestate` that are kept; the recommendation asks for no more."""

_MAX_MEMBERS = 32
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MEMBER = re.compile(
    r"(?P<key>[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=(?P<value>[ -+\--<>-~]{0,255}[!-+\--<>-~])",
    re.ASCII,
)


def read_trace_context(parents: list[str], states: list[str]) -> TraceContext | None:
    """The context in the values of the two headers, each with as many as were sent; None without a good one.

    `tracestate` counts only beside a good `traceparent`. A `tracestate` that is too long is cut at its end,
    in whole members, as the latest are in front.
    """
    if len(parents) != 1:
        return None
    found = _PARENT.fullmatch(parents[0].strip(" \t"))
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    # Later versions may have further fields; version 00 has none, and ff is no version.
    if version == "ff" or (version == "00" and more) or not (int(trace_id, 16) and int(parent_id, 16)):
        return None
    return TraceContext(parent=f"{version}-{trace_id}-{parent_id}-{flags}", state=_state(states))


def _state(states: list[str]) -> str | None:
    members = [member for state in states for part in state.split(",") if (member := part.strip(" \t"))]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {match["key"] for match in found if match}
    if not keys or len(keys) < len(members) or len(members) > _MAX_MEMBERS:
        return None
    kept = ""
    for member in members:
        longer = f"{kept},{member}" if kept else member
        if len(longer) > MAX_STATE:
            break
        kept = longer
    return kept or None

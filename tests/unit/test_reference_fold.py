"""The server's fold beside one that was written from the specification alone: they agree on every log."""

import json
from typing import Any, get_args

import msgspec
from hypothesis import HealthCheck, given, settings

from runglass.events import EventType, UnknownEvent, decode_event
from runglass.fold import fold
from tests.reference_fold import reference_trace
from tests.run_logs import run_logs


def served(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The trace that the server's fold makes of these events, as JSON."""
    trace = fold([decode_event(json.dumps(event).encode()) for event in events])
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(trace))
    return decoded


def canonical(trace: dict[str, Any]) -> str:
    """Text to compare by: JSON has its own idea of equality, in Python `1 == True`."""
    return json.dumps(trace, sort_keys=True, indent=1)

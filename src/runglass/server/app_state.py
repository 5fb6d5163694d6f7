"""What the endpoints of one server share."""

import asyncio
from typing import NamedTuple
from weakref import WeakValueDictionary

from runglass.runtime import Runtime
from runglass.server.http.open_calls import OpenCalls
from runglass.server.http.open_responses import OpenResponses
from runglass.server.services.failure_replay import FailureReplay
from runglass.server.services.health import HealthCheck
from runglass.server.services.request_admission import RequestAdmission


class AppState(NamedTuple):
    """Owned by the application."""

    runtime: Runtime
    ongoing: OpenResponses
    open_calls: OpenCalls
    taking_in: RequestAdmission
    repeats: FailureReplay
    health: HealthCheck
    idempotency_locks: WeakValueDictionary[tuple[int, str], asyncio.Lock]
    """By project and Idempotency-Key: held by the calls that wait for one, gone with the last of them."""

"""What the endpoints of one server share."""

import asyncio
from typing import NamedTuple
from weakref import WeakValueDictionary

from runglass.runtime import Runtime
from runglass.server.health import HealthCheck
from runglass.server.ongoing import Ongoing
from runglass.server.open_calls import OpenCalls
from runglass.server.repeats import Repeats
from runglass.server.taking_in import TakingIn


class Services(NamedTuple):
    """Owned by the application."""

    runtime: Runtime
    ongoing: Ongoing
    open_calls: OpenCalls
    taking_in: TakingIn
    repeats: Repeats
    health: HealthCheck
    idempotency_locks: WeakValueDictionary[tuple[int, str], asyncio.Lock]
    """By project and Idempotency-Key: held by the calls that wait for one, gone with the last of them."""

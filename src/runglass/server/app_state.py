"""The state that the endpoints of one server share."""

import asyncio
from typing import NamedTuple
from weakref import WeakValueDictionary

from runglass.engine.scheduling.fair_share import FairTurns
from runglass.runtime.health import HealthCheck
from runglass.runtime.runtime import Runtime
from runglass.server.http.open_responses import OpenCalls, OpenResponses
from runglass.server.security.browser_sessions import BrowserSessions
from runglass.server.security.login_tickets import LoginTickets
from runglass.server.services.failure_replay import FailureReplay
from runglass.server.services.outlines import Outlines
from runglass.server.services.request_admission import RequestAdmission
from runglass.server.services.run_import import RunImports


class AppState(NamedTuple):
    """Owned by the application."""

    runtime: Runtime
    open_responses: OpenResponses
    open_calls: OpenCalls
    admission: RequestAdmission
    failure_replay: FailureReplay
    health: HealthCheck
    outlines: Outlines
    imports: RunImports
    sessions: BrowserSessions
    diffs: FairTurns
    """The turns of diffs, which hold two traces in memory."""
    tickets: LoginTickets
    idempotency_locks: WeakValueDictionary[tuple[int, str], asyncio.Lock]
    """Locks by project and Idempotency-Key; each goes with the last call that waits for it."""

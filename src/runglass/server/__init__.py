"""The HTTP server: the wire contract (`docs/spec/wire.md`) on top of a runtime.

Knows no SQL, and nothing of how a step is run.
"""

from runglass.runtime.worker import new_event_loop
from runglass.server.app import create_app
from runglass.server.bootstrap import serve, serving
from runglass.server.security.login_tickets import LoginTickets

__all__ = ["LoginTickets", "create_app", "new_event_loop", "serve", "serving"]

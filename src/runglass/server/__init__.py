"""The HTTP server: the wire contract on top of a runtime."""

from runglass.server.app import create_app
from runglass.server.bootstrap import new_event_loop, serve, serving

__all__ = ["create_app", "new_event_loop", "serve", "serving"]

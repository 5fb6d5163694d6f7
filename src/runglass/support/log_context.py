"""Which request and which run a line of the log is about, where the code that writes it need not know."""

from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id that the request's answer has as X-Request-Id."""
run_id: ContextVar[str] = ContextVar("run_id", default="")
"""The run whose segment goes on in this task."""

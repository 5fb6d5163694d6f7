"""The client, blocking and on asyncio.

Calls, retries and the cursor of a live trace are described without I/O; two thin transports perform them.
What needs asyncio is loaded when it is first used, so that a blocking program does not pay for it.
"""

import importlib
from typing import TYPE_CHECKING

from runglass.client.client import Client
from runglass.client.flows import Flow
from runglass.client.jobs import AsyncJob, Job
from runglass.client.paused import AsyncPausedResult, PausedResult
from runglass.client.runs import AsyncRun, Run
from runglass.client.tools import ToolCall
from runglass.client.walk import StepResult

if TYPE_CHECKING:
    from runglass.client.async_client import AsyncClient
    from runglass.client.async_flows import AsyncFlow

__all__ = [
    "AsyncClient",
    "AsyncFlow",
    "AsyncJob",
    "AsyncPausedResult",
    "AsyncRun",
    "Client",
    "Flow",
    "Job",
    "PausedResult",
    "Run",
    "StepResult",
    "ToolCall",
]

if not TYPE_CHECKING:  # type checkers would take any name for good if they saw this
    _HOME = {"AsyncClient": "async_client", "AsyncFlow": "async_flows"}

    def __getattr__(name):
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value  # the next use finds it without coming here
        return value

    def __dir__():
        return sorted({*globals(), *__all__})

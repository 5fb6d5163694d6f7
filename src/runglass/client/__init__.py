"""The client, blocking and on asyncio.

Calls, retries and the cursor of a live trace are described without I/O; two thin transports perform them.
"""

from runglass.client.async_flows import AsyncFlow
from runglass.client.client import AsyncClient, Client
from runglass.client.flows import Flow
from runglass.client.jobs import AsyncJob, Job
from runglass.client.paused import AsyncPausedResult, PausedResult
from runglass.client.runs import AsyncRun, Run
from runglass.client.tools import ToolCall
from runglass.client.walk import StepResult

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

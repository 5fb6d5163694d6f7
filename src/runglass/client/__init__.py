"""The client, blocking and on asyncio.

Calls, retries and the cursor of a live trace are described without I/O; two thin transports perform them.
Here is what a blocking program may load; `async_client` and `async_flows` need asyncio and stand apart.
"""

from runglass.client.client import Client
from runglass.client.flows import Flow
from runglass.client.jobs import AsyncJob, Job
from runglass.client.paused import AsyncPausedResult, PausedResult
from runglass.client.runs import AsyncRun, Run
from runglass.client.tools import ToolCall
from runglass.client.walk import StepResult

__all__ = [
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

"""The client, blocking and on asyncio. Knows nothing of server, engine and stores.

Calls, retries and the cursor of a live trace are described without I/O; two thin transports perform them.
Here is what a blocking program may load; `async_client` and `async_flows` need asyncio and stand apart.
"""

from runglass.client.api.client import Client
from runglass.client.api.flows import Flow
from runglass.client.api.jobs import AsyncJob, Job
from runglass.client.api.pauses import AsyncPausedResult, PausedResult
from runglass.client.api.runs import AsyncRun, Run
from runglass.client.core.step_session import StepResult
from runglass.client.core.tools import ToolCall

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

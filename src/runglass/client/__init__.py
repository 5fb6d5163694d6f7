"""The client, blocking and on asyncio. Knows nothing of server, engine and stores.

Calls, retries and the cursor of a live trace are described without I/O; two thin transports perform them.
The blocking half is written from the one on asyncio. Here is what a blocking program may load.
"""

from runglass.client.blocking.client import Client
from runglass.client.blocking.flows import Flow
from runglass.client.blocking.pauses import PausedResult
from runglass.client.blocking.runs import Job, Run
from runglass.client.core.step_session import StepResult
from runglass.client.core.tools import ToolCall

__all__ = ["Client", "Flow", "Job", "PausedResult", "Run", "StepResult", "ToolCall"]

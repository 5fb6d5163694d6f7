"""The client, blocking and on asyncio.

Calls, retries and the cursor of a live trace are described without I/O; two thin transports perform them.
"""

from runglass.client.client import AsyncClient, Client
from runglass.client.flows import AsyncFlow, Flow
from runglass.client.runs import AsyncRun, Run

__all__ = ["AsyncClient", "AsyncFlow", "AsyncRun", "Client", "Flow", "Run"]

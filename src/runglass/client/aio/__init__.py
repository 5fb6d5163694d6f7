"""The client on asyncio, from which the blocking one is written. Knows nothing of sockets and frames."""

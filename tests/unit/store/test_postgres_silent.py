"""A host that takes connections and says nothing, as one behind a firewall that drops packets."""

import asyncio
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest

from runglass.errors import StoreUnreachable
from runglass.store.postgres.connections import CONNECTIONS
from runglass.store.postgres.store import PostgresStore
from tests.conformance.stores import make_run
from tests.postgres_proxy import SOCKET
from tests.postgres_server import postgres_server

pytestmark = pytest.mark.slow

PATIENCE_S = 5.0


async def test_new_connections_to_a_silent_host_are_given_up_and_none_is_missing_later(
    address: str,
) -> None:
    plain = urlsplit(address)
    speaks = asyncio.Event()
    speaks.set()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await speaks.wait()
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        below, above = await asyncio.open_unix_connection(f"{parse_qs(plain.query)['host'][0]}/{SOCKET}")
        await asyncio.gather(passed(reader, above), passed(below, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        address = f"postgresql://postgres@127.0.0.1:{port}{plain.path}?sslmode=disable"
        async with PostgresStore(address, patience_s=PATIENCE_S) as store:
            run = await make_run(store)
            # Those that are open would wait for an answer as long as a statement may take.
            await postgres_server().execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE datname = '{plain.path.removeprefix('/')}'"
            )
            speaks.clear()
            calls = [store.run(run.id) for _ in range(CONNECTIONS)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(each, StoreUnreachable) for each in outcomes), outcomes
            speaks.set()
            again = await asyncio.gather(*(store.run(run.id) for _ in range(2 * CONNECTIONS)))
            assert all(found is not None for found in again)

"""TLS to a database: its certificate is held against the CA that the address names.

The PostgreSQL of the tests speaks no TLS itself, so something before it does.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from runglass.errors import StoreError
from runglass.store.postgres.store import PostgresStore
from tests.conformance.test_store import make_run
from tests.postgres_proxy import SOCKET
from tests.postgres_server import postgres_server


async def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that has signed itself, and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    options = ["-subj", "/CN=db", "-addext", "subjectAltName=IP:127.0.0.1"]
    words = ["req", "-new", "-x509", "-nodes", *options]
    making = await asyncio.create_subprocess_exec(
        "openssl", *words, "-keyout", key, "-out", certificate, stderr=asyncio.subprocess.DEVNULL
    )
    assert await making.wait() == 0
    return certificate, key


@pytest.fixture
async def encrypted(tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """The address of a database over TLS but for the file of the CA, and that file."""
    plain = urlsplit(await (await asyncio.to_thread(postgres_server)).database_of(tmp_path))
    certificate, key = await make_certificate(tmp_path, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S")
        try:
            await writer.start_tls(context)
        except OSError:
            writer.close()
            return
        below, above = await asyncio.open_unix_connection(f"{parse_qs(plain.query)['host'][0]}/{SOCKET}")
        await asyncio.gather(passed(reader, above), passed(below, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        address = f"postgresql://postgres@127.0.0.1:{port}{plain.path}?sslmode=verify-full&sslrootcert="
        yield address, certificate


async def test_a_store_is_used_over_tls_and_no_other_server_is_taken_for_it(
    encrypted: tuple[str, Path], tmp_path: Path
) -> None:
    address, certificate = encrypted
    async with PostgresStore(f"{address}{certificate}") as store:
        run = await make_run(store)
        found = await store.run(run.id)
        assert found is not None
    other, _ = await make_certificate(tmp_path, "other")
    with pytest.raises(StoreError, match=r"(?i)certificate"):
        await PostgresStore(f"{address}{other}", patience_s=1.0).__aenter__()

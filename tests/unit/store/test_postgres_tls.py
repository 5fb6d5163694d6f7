"""TLS to a database: its certificate is held against the CA that the address names, and what fails is said.

The PostgreSQL of the tests speaks no TLS itself, so something before it does.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from runglass.bus.carrier import BusAway
from runglass.bus.postgres import PostgresCarrier
from runglass.cli.exit_codes import Exit, exit_of
from runglass.errors import StoreError
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.store import PostgresStore
from tests.conformance.stores import make_run
from tests.postgres_proxy import SOCKET

pytestmark = pytest.mark.slow

EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIBfzCCASagAwIBAgIUbxcmUP1n56ShNN5cJ+5kGbS0mvEwCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCZGIwHhcNMjAwMTAxMDAwMDAwWhcNMjAwMjAxMDAwMDAwWjAN
MQswCQYDVQQDDAJkYjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDg6cIKF6Ryl
gfPi7z173UVeZHJI0o52Ju2cMBVnh5u85yf7aQhyPwljOT0O4BKK4PxuB33UtYiz
zHntCeXvkNujZDBiMB0GA1UdDgQWBBTKgX3EgMIRGouDwJhqk+EkSIq+fjAfBgNV
HSMEGDAWgBTKgX3EgMIRGouDwJhqk+EkSIq+fjAPBgNVHRMBAf8EBTADAQH/MA8G
A1UdEQQIMAaHBH8AAAEwCgYIKoZIzj0EAwIDRwAwRAIgDtPfrA0PVMHTwZB6I3gu
KFED1MB4WMhO4VAran8TF0ICIC02Rw6lZyoUEdPKwOZRfCcG00bATVhnuS/5KDq9
CneR
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBwyFuuhdkDNFFzeQ
rTGjaNn0U65Y0MychxqAGd0WbEKhRANCAAQ4OnCChekcpYHz4u89e91FXmRySNKO
dibtnDAVZ4ebvOcn+2kIcj8JYzk9DuASiuD8bgd91LWIs8x57Qnl75Db
-----END PRIVATE KEY-----
"""
"""A certificate for 127.0.0.1 that has signed itself and has expired in 2020, and its key."""


async def make_certificate(folder: Path, name: str, *, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A certificate for the host that has signed itself, and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    options = ["-subj", "/CN=db", "-addext", f"subjectAltName={host}"]
    words = ["req", "-new", "-x509", "-nodes", *options]
    making = await asyncio.create_subprocess_exec(
        "openssl", *words, "-keyout", key, "-out", certificate, stderr=asyncio.subprocess.DEVNULL
    )
    assert await making.wait() == 0
    return certificate, key


@asynccontextmanager
async def encrypted(plain: str, certificate: Path, key: Path | None) -> AsyncIterator[str]:
    """The address of the database over TLS but for its options; without a key the server declines TLS."""
    where = urlsplit(plain)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if key is not None:
        context.load_cert_chain(certificate, key)

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        if key is None:
            writer.write(b"N")
            writer.close()
            return
        writer.write(b"S")
        try:
            await writer.start_tls(context)
        except OSError:
            writer.close()
            return
        below, above = await asyncio.open_unix_connection(f"{parse_qs(where.query)['host'][0]}/{SOCKET}")
        await asyncio.gather(passed(reader, above), passed(below, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://postgres@127.0.0.1:{port}{where.path}"


async def refusal(address: str) -> StoreError:
    """Why there is no connection, tried once."""
    connections = Connections(address)

    async def attempt() -> None:
        await connections.open()
        await connections.repeat(lambda db: db.execute("SELECT 1"), patience_s=0.0)

    with pytest.raises(StoreError) as refused:
        await attempt()
    await connections.close()
    return refused.value


async def test_a_store_is_used_over_tls_and_no_other_server_is_taken_for_it(
    address: str, tmp_path: Path
) -> None:
    certificate, key = await make_certificate(tmp_path, "server")
    other, _ = await make_certificate(tmp_path, "other")
    async with encrypted(address, certificate, key) as over_tls:
        over_tls += "?sslmode=verify-full&sslrootcert="
        async with PostgresStore(f"{over_tls}{certificate}") as store:
            run = await make_run(store)
            assert await store.run(run.id) is not None
        refused = await refusal(f"{over_tls}{other}")
        assert "its certificate is signed by none of the CAs that are trusted here" in str(refused)
        assert exit_of(refused) == Exit.UNREACHABLE
        carrier = PostgresCarrier(f"{over_tls}{other}")
        with pytest.raises(BusAway, match="signed by none of the CAs that are trusted here"):
            await carrier.connect(hear=print, lost=print).__aenter__()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("expired", "its certificate has expired"),
        ("of another host", "its certificate is for another host"),
        ("none", "rejected SSL upgrade"),
    ],
)
async def test_a_server_that_is_not_trusted_is_refused_in_one_sentence(
    address: str, tmp_path: Path, kind: str, said: str
) -> None:
    certificate = tmp_path / "expired.crt"
    certificate.write_text(EXPIRED)
    key: Path | None = certificate
    if kind == "of another host":
        certificate, key = await make_certificate(tmp_path, "other", host="DNS:db.example")
    elif kind == "none":
        key = None
    async with encrypted(address, certificate, key) as over_tls:
        refused = await refusal(f"{over_tls}?sslmode=verify-full&sslrootcert={certificate}")
    assert said in str(refused)
    assert "\n" not in str(refused)
    assert "_ssl.c" not in str(refused)
    assert exit_of(refused) == Exit.UNREACHABLE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("sslmode=verify-full&sslrootcert={}/none.crt", "of sslrootcert cannot be read: No such file"),
        ("sslmode=verify-full&sslrootcert={}/text.crt", "of sslrootcert has no certificate"),
        ("sslmode=require&sslcert={}/none.crt&sslkey={}/text.crt", "of sslcert cannot be read"),
        ("sslmode=verify-ful", "`sslmode` parameter must be one of"),
    ],
)
async def test_an_address_that_asks_for_what_cannot_be_is_refused_as_a_wrong_setting(
    tmp_path: Path, options: str, said: str
) -> None:
    (tmp_path / "text.crt").write_text("no certificate")
    refused = await refusal(f"postgresql://postgres@127.0.0.1:1/db?{options.replace('{}', str(tmp_path))}")
    assert said in str(refused)
    assert "\n" not in str(refused)
    assert exit_of(refused) == Exit.USAGE

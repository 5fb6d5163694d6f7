"""What carries wake-ups, on real servers that are killed, refuse and pass nothing on."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from runglass.bus.base import Bus
from runglass.bus.carrier import BusAway
from runglass.bus.nats import NatsCarrier
from runglass.bus.postgres import PostgresCarrier
from runglass.bus.process_bus import ProcessBus
from runglass.config.address import parse_nats_address
from tests.conformance.test_bus import connected, not_woken, on_nats, on_postgres, running
from tests.nats_server import nats_server
from tests.ports import free_port
from tests.postgres_proxy import cutting_proxy
from tests.postgres_server import connected as session_in
from tests.postgres_server import postgres_database, until_waiting
from tests.waiting import until

pytestmark = pytest.mark.slow

TLS = Path(__file__).parent / "tls"
SERVER_TLS = ("--tls", "--tlscert", str(TLS / "cert.pem"), "--tlskey", str(TLS / "key.pem"))

SLOW_NOTIFY = """
CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE sql AS $$
  SELECT pg_advisory_xact_lock_shared(1) WHERE $2 = 'cut off';
  SELECT pg_catalog.pg_notify($1, $2)
$$
"""
"""It is found before that of the system where a search path says so, and one text waits for a lock."""


@pytest.fixture
def database() -> Iterator[str]:
    with postgres_database() as address:
        yield address


async def woken(bus: Bus, by: Bus, *, subject: str = "run") -> None:
    """Returns when a wake-up by another process has come."""
    async with bus.listen(subject) as listener:
        await by.wake(subject)
        await listener.wait(1000)


async def meeting(address: str) -> None:
    """Returns when a process on the NATS at this address has woken another one."""
    async with running(on_nats(address), on_nats(address)) as (here, there):
        await woken(there, here)


async def found_again(
    here: ProcessBus, there: ProcessBus, *, leave: Callable[[], None], come: Callable[[], None]
) -> None:
    """What carries the wake-ups of the first bus goes, and comes back."""
    leave()
    await until(lambda: here.fault)
    come()
    await connected(here, there)
    await woken(there, here)
    await woken(here, there)


async def apart(here: ProcessBus, there: ProcessBus, other: ProcessBus, beside: ProcessBus) -> None:
    """Neither of the last two is woken by the first two, which are of another installation."""
    async with running(here, there, other, beside), not_woken(other, "run"):
        await woken(there, here)
        # What comes over the same connection after that text has come too.
        await woken(other, beside, subject="last")


async def refusal(carrier: NatsCarrier | PostgresCarrier) -> str:
    """Why the carrier does not connect."""
    with pytest.raises(BusAway) as refused:
        async with carrier.connect(hear=lambda _: None, lost=lambda _: None):
            pass
    return str(refused.value)


async def test_of_several_nats_one_that_is_there_is_taken_and_found_again_after_a_kill() -> None:
    with nats_server() as server:
        there = on_nats(server.address)
        here = on_nats(f"nats://127.0.0.1:{free_port()},127.0.0.1:{server.port}")
        async with running(here, there):
            for _ in range(2):
                await found_again(here, there, leave=server.kill, come=server.start)


async def test_nats_lets_in_who_has_the_password_and_messages_do_not_have_it() -> None:
    with nats_server("--user", "me", "--pass", "p@ss") as server:
        good = f"nats://me:p%40ss@127.0.0.1:{server.port}"
        await meeting(good)
        for bad in ("me:wrong-secret@", "wrong-secret@", ""):
            why = await refusal(NatsCarrier(parse_nats_address(f"nats://{bad}127.0.0.1:{server.port}")))
            assert "Authorization Violation" in why
            assert f"127.0.0.1:{server.port}" in why
            assert "secret" not in why


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (("--auth", "tok:en"), "nats://tok%3Aen@localhost:{}"),
        (SERVER_TLS, f"nats://localhost:{{}}?ca={TLS}/cert.pem"),
    ],
    ids=["a token", "TLS"],
)
async def test_nats_gets_what_it_asks_for(options: tuple[str, ...], address: str) -> None:
    with nats_server(*options) as server:
        await meeting(address.format(server.port))


async def test_two_installations_on_one_nats_do_not_wake_each_other() -> None:
    with nats_server() as server:
        addresses = [f"{server.address}/a"] * 2 + [server.address] * 2
        await apart(*map(on_nats, addresses))


async def test_nats_over_tls_with_a_certificate_of_our_own(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(
        f'tls {{ cert_file: "{TLS}/cert.pem", key_file: "{TLS}/key.pem", ca_file: "{TLS}/cert.pem",'
        " verify: true, handshake_first: true }"
    )
    files = f"ca={TLS}/cert.pem&cert={TLS}/cert.pem&key={TLS}/key.pem"
    with nats_server("--config", str(config)) as server:
        await meeting(f"tls://localhost:{server.port}?{files}")
        stranger = NatsCarrier(parse_nats_address(f"tls://localhost:{server.port}"))
        assert "its certificate is signed by none of the CAs that are trusted here" in await refusal(stranger)


async def test_over_tls_no_password_goes_to_a_server_that_speaks_none() -> None:
    heard = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576}\r\n')
        heard += await reader.read(1 << 16)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await refusal(NatsCarrier(parse_nats_address(f"tls://me:secret@127.0.0.1:{port}")))
    assert heard
    assert b"secret" not in heard


def test_a_certificate_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(OSError, match="No such file"):
        NatsCarrier(parse_nats_address("tls://host?ca=/nowhere/ca.pem"))


async def test_a_postgres_that_was_away_is_found_again(database: str) -> None:
    async with cutting_proxy(database) as (proxy, address):
        here, there = on_postgres(address), on_postgres(database)
        async with running(here, there):
            await found_again(here, there, leave=proxy.go_away, come=proxy.come_back)


@pytest.mark.parametrize("said", ["LISTEN", "pg_notify"])
async def test_each_of_the_two_sessions_may_be_ended(
    database: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(on_postgres(database), on_postgres(database)) as (here, there):
        async with session_in(database) as administrator:
            ended = await administrator.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND position($1 IN query) > 0",
                said,
            )
        assert len(ended) == 2
        await until(lambda: len(caplog.records) == 2)
        await connected(here, there)
        await woken(here, there)
        await woken(there, here)


async def test_a_text_that_is_cut_off_keeps_the_next_one_from_nobody(database: str) -> None:
    heard: list[str] = []
    carrier = PostgresCarrier(f"{database}&search_path=public,pg_catalog")
    async with session_in(database) as administrator:
        await administrator.execute(SLOW_NOTIFY)
        async with (
            administrator.transaction(),
            carrier.connect(hear=heard.append, lost=lambda _: None) as send,
        ):
            await administrator.execute("SELECT pg_advisory_xact_lock(1)")
            sending = asyncio.ensure_future(send("cut off"))
            await until_waiting(database)
            sending.cancel()
            await asyncio.wait({sending})
            await send("the last one")
            await until(lambda: heard)
    assert heard == ["the last one"]


async def test_a_role_that_ends_silent_sessions_does_not_end_these(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    address, ended = f"{database}&idle_session_timeout=2000", asyncio.Event()
    async with running(on_postgres(address)):
        # One that began to be silent after those two.
        silent = await asyncpg.connect(address)
        silent.add_termination_listener(lambda _: ended.set())
        await ended.wait()
    assert "the bus is unavailable" not in caplog.text


async def test_installations_in_two_schemas_do_not_wake_each_other(database: str) -> None:
    async with session_in(database) as administrator:
        await administrator.execute('CREATE SCHEMA "it\'s another"')
    other = f"{database}&search_path=%22it%27s%20another%22"
    await apart(*map(on_postgres, [database, database, other, other]))


async def test_a_database_that_is_not_there_is_told_without_a_password(database: str) -> None:
    address = database.replace("/runglass_", "/nowhere_").replace("postgres:@", "postgres:secret@")
    why = await refusal(PostgresCarrier(address))
    assert "does not exist" in why
    assert "secret" not in why

"""Wake-ups between processes, over networks that delay, lose and repeat."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runglass.bus.base import Listener
from runglass.bus.carrier import KEY_LENGTH, MOST_KEYS, BusAway, Hear, Send, key_of
from runglass.bus.process_bus import FAREWELL_S, ProcessBus
from runglass.log.events import event_type_of
from runglass.store.sqlite.store import SqliteStore
from runglass.tails.run_log import Tails
from tests.conformance.stores import batch, make_run
from tests.conformance.test_bus import connected, not_woken, running
from tests.fakes import in_virtual_time, let_time_pass
from tests.waiting import until

WAIT_S = 1000.0
Network = Callable[[str, Hear], None]


def deliver(text: str, hear: Hear) -> None:
    """A network that is as one would like it."""
    hear(text)


async def at_once() -> None:
    """Sending waits for nothing."""


class FakeCarrier:
    """Carries texts to all who are connected to it, through `network`, while it is not `away`.

    What is sent waits for `ready` first.
    """

    name = "nats://fake"

    def __init__(self) -> None:
        self.network: Network = deliver
        self.ready: Callable[[], Awaitable[object]] = at_once
        self.away = False
        self.sent: list[str] = []
        self.connections = 0
        self._connected: dict[Hear, Hear] = {}

    @asynccontextmanager
    async def connect(self, *, hear: Hear, lost: Hear) -> AsyncIterator[Send]:
        self._refuse()
        self.connections += 1
        self._connected[hear] = lost
        try:
            yield self.send
        finally:
            self._connected.pop(hear, None)

    def cut(self) -> None:
        """Every connection is lost, and none is made until `away` is False."""
        self.away = True
        for lost in self._connected.values():
            lost("cut")
        self._connected.clear()

    async def send(self, text: str) -> None:
        await self.ready()
        self._refuse()
        self.sent.append(text)
        for hear in list(self._connected):
            self.network(text, hear)

    def _refuse(self) -> None:
        if self.away:
            raise BusAway(f"{self.name}: away")


@pytest.fixture
def carrier() -> FakeCarrier:
    return FakeCarrier()


async def heard(listener: Listener) -> None:
    """Returns when a wake-up has come. In virtual time a wait for one that never comes ends at once, too."""
    loop = asyncio.get_running_loop()
    before_s = loop.time()
    await listener.wait(WAIT_S)
    assert loop.time() - before_s < WAIT_S


@in_virtual_time
async def test_wake_ups_of_a_moment_go_as_one_text_and_the_first_of_them_at_once(
    carrier: FakeCarrier,
) -> None:
    async with running(ProcessBus(carrier, join_s=0.05), ProcessBus(carrier)) as (here, there):
        await let_time_pass(0.06)
        carrier.sent.clear()
        async with there.listen("last") as listener:
            await here.wake("first")
            await let_time_pass()
            assert len(carrier.sent) == 1
            # Each is sent once, however often it was woken.
            for number in [*range(MOST_KEYS - 1)] * 2:
                await here.wake(str(number))
            await let_time_pass()
            await here.wake("last")
            await heard(listener)
        assert [len(text) // KEY_LENGTH for text in carrier.sent] == [2, MOST_KEYS + 1]


@in_virtual_time
async def test_a_process_is_not_woken_by_its_own_text_a_second_time(carrier: FakeCarrier) -> None:
    async with running(ProcessBus(carrier)) as (bus,), bus.listen("run") as listener:
        await bus.wake("run")
        await heard(listener)
        carrier.sent.clear()
        again = asyncio.create_task(heard(listener))
        await until(lambda: carrier.sent)
        await let_time_pass()
        assert not again.done()
        again.cancel()


@in_virtual_time
async def test_after_a_gap_everybody_looks_and_what_was_woken_meanwhile_is_sent(
    carrier: FakeCarrier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runglass")
    # It is away at the start, too, and found after several tries.
    carrier.away = True
    asyncio.get_running_loop().call_later(0.5, setattr, carrier, "away", False)
    here, there = ProcessBus(carrier), ProcessBus(carrier)
    async with running(here, there), there.listen("quiet") as quiet:
        carrier.cut()
        await until(lambda: here.fault and there.fault)
        assert "noticed late" in (here.fault or "")
        async with there.listen("run") as listener:
            await here.wake("run")
            asleep = asyncio.create_task(heard(quiet))
            await let_time_pass()
            assert not asleep.done()
            carrier.away = False
            await heard(listener)
            await asleep
        await connected(here, there)
        async with there.listen("other") as listener:
            await here.wake("other")
            await heard(listener)
        assert (here.fault, there.fault) == (None, None)
        carrier.cut()
        await until(lambda: here.fault and there.fault)
    told = [record.levelname for record in caplog.records if "bus is unavailable" in record.message]
    assert told == ["WARNING"] * 6, "each loss once"


@in_virtual_time
async def test_what_could_not_be_sent_is_sent_though_all_before_it_came_back(carrier: FakeCarrier) -> None:
    here, there = ProcessBus(carrier), ProcessBus(carrier)
    held: list[tuple[str, Hear]] = []

    async def with_what_is_held() -> None:
        for late, hear in held:
            hear(late)

    async with running(here, there), there.listen("second") as listener:
        await let_time_pass(1)
        carrier.network = lambda text, hear: held.append((text, hear))
        await here.wake("first")
        await let_time_pass(0.1)
        carrier.ready, carrier.away = with_what_is_held, True
        await here.wake("second")
        await until(lambda: here.fault)
        carrier.network, carrier.away = deliver, False
        await heard(listener)


@in_virtual_time
async def test_a_connection_that_has_gone_silent_is_made_anew(carrier: FakeCarrier) -> None:
    here, there = ProcessBus(carrier, echo_s=0.05), ProcessBus(carrier)
    async with running(here, there), there.listen("run") as listener:
        before = carrier.connections
        carrier.network = lambda text, hear: None
        await here.wake("run")
        await until(lambda: carrier.connections > before)
        carrier.network = deliver
        # Whoever missed the lost texts looks.
        await heard(listener)
        await connected(here)


@in_virtual_time
async def test_a_bus_that_passes_nothing_on_is_told_after_five_seconds_and_tried_anew_after_a_minute(
    carrier: FakeCarrier, caplog: pytest.LogCaptureFixture
) -> None:
    carrier.network = lambda text, hear: None
    bus = ProcessBus(carrier)
    task = asyncio.create_task(bus.run_forever())
    await let_time_pass(4.9)
    assert bus.fault is None
    await let_time_pass(0.2)
    assert bus.fault
    assert "set RUNGLASS_BUS to an address of the database without the pooler" in caplog.text
    await let_time_pass(59.5)
    assert carrier.connections == 1
    await let_time_pass(0.5)
    assert carrier.connections == 2
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize("is_sent", [False, True], ids=["waits to be sent", "is just being sent"])
@in_virtual_time
async def test_what_a_process_that_goes_was_to_send_is_sent_before(
    carrier: FakeCarrier, is_sent: bool
) -> None:
    here, there = ProcessBus(carrier, join_s=1.0), ProcessBus(carrier)

    async def never() -> None:
        carrier.ready = at_once
        await asyncio.Event().wait()

    async with running(there), there.listen("run") as listener:
        async with running(here):
            if is_sent:
                carrier.ready = never
            await here.wake("run")
            await until(lambda: carrier.ready is at_once)
        await heard(listener)


@in_virtual_time
async def test_a_process_whose_last_text_hangs_goes_nevertheless(carrier: FakeCarrier) -> None:
    loop = asyncio.get_running_loop()
    async with running(ProcessBus(carrier)) as (bus,):
        await let_time_pass(1)
        carrier.ready = asyncio.Event().wait
        await bus.wake("run")
        await let_time_pass()
        before_s = loop.time()
    assert loop.time() - before_s < 2 * FAREWELL_S


@in_virtual_time
async def test_texts_of_strangers_wake_nobody_and_break_nothing(carrier: FakeCarrier) -> None:
    async with running(ProcessBus(carrier)) as (bus,), not_woken(bus, "run"):
        with patch.object(bus, "wake_here", wraps=bus.wake_here) as looked:
            for text in ("", "x", "\0" * 5000, "{}" * 100_000, "\udcff" * 30, "run"):
                await carrier.send(text)
        assert looked.call_count < 2 * MOST_KEYS
        await let_time_pass()
        assert bus.fault is None


@pytest.mark.parametrize("seed", range(8))
async def test_a_tail_in_another_process_has_every_event_whatever_the_network_does(
    seed: int, carrier: FakeCarrier, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    loop = asyncio.get_running_loop()

    def unreliable(text: str, hear: Hear) -> None:
        for _ in range(chance.choice([0, 1, 1, 2])):
            loop.call_later(chance.choice([0, 0.001, 0.03]), hear, text)

    here, there = ProcessBus(carrier, join_s=0.001, echo_s=0.2), ProcessBus(carrier, echo_s=0.2)
    async with SqliteStore(tmp_path / "runglass.db") as store, running(here, there):
        run = await make_run(store)
        carrier.network = unreliable

        async def write() -> None:
            for head in range(40):
                name = b"flow_completed" if head == 39 else b"step_started"
                await store.append(batch(run, head, b'{"eventType":"%b"}' % name))
                await here.wake(run.id)
                if chance.random() < 0.1:
                    carrier.cut()
                    carrier.away = chance.random() < 0.5
            carrier.away = False

        writing = asyncio.create_task(write())
        async with aclosing(Tails(store, there, poll_s=0.1).follow(run)) as pages:
            got = [event async for page in pages for event in page]
        await writing
    assert [seq for seq, _ in got] == list(range(1, 41))
    assert event_type_of(got[-1][1]) == "flow_completed"


@given(st.text(), st.text())
@example("\ud800", "\udfff")
def test_a_key_is_short_and_plain_and_of_one_subject(one: str, two: str) -> None:
    key = key_of(one)
    assert len(key) == KEY_LENGTH
    assert key.isascii()
    assert key.replace("-", "a").replace("_", "a").isalnum()
    assert (key == key_of(two)) == (one == two)

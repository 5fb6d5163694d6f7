"""One attack after the other, each between a quiet time and a restart of the server."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

import msgspec

from tests.prove.attacking.aftermath import first_run, lost, lost_of_attacker
from tests.prove.attacking.attack import Attack
from tests.prove.attacking.field import Field
from tests.prove.attacking.hostile_provider import HostileProvider
from tests.prove.attacking.neighbour import Sample, Samples, neighbour
from tests.prove.attacking.provider import PROVIDER_KEY, Provider
from tests.prove.attacking.seed import Ground, Seeded, StoreKind
from tests.prove.attacking.server import AttackedServer, new_server
from tests.prove.attacking.verdict import (
    BACK_SHARE,
    CEILING_MB,
    RSS_MB,
    SETTLE_S,
    STOP_S,
    Verdict,
    is_settled,
    judge_memory,
    judge_neighbour,
    speeds_of,
    standstill_ms,
)

QUIET_S = 1.0
QUIET_KEPT = 6
"""Quiet times that a p99 is taken from: the newest ones."""
WARM_S = 15.0
OVERTIME_S = 3.0
"""Beyond its time, for an attack to look at what it has done; it is cancelled then."""
LONGEST_WAIT_S = 8.0


class Bout:
    """Holds the data, the providers, and the server that the next attack will meet, if one is up."""

    def __init__(
        self,
        store: StoreKind,
        ground: Ground,
        provider: Provider,
        hostile: HostileProvider,
        seeded: Seeded,
        *,
        seconds: float,
    ) -> None:
        self._store = store
        self._ground = ground
        self._provider = provider
        self._hostile = hostile
        self._seconds = seconds
        self._seeded = seeded
        self._headers = [("Authorization", f"Bearer {seeded.neighbour_key}")]
        self._server: AttackedServer | None = None
        self._second: AttackedServer | None = None
        self._neighbour: AsyncExitStack | None = None
        self._samples = Samples()
        self._quiet: deque[list[Sample]] = deque(maxlen=QUIET_KEPT)

    @classmethod
    @asynccontextmanager
    async def begun(cls, folder: Path, store: StoreKind, *, seconds: float) -> AsyncIterator[Self]:
        """No server outlives the block."""
        async with Provider.serving() as provider, HostileProvider.serving() as hostile:
            ground = Ground(folder, store)
            bout = cls(store, ground, provider, hostile, await ground.seed(), seconds=seconds)
            try:
                yield bout
            finally:
                await bout._drop()

    async def fight(self, attack: Attack, *, thorough: bool = False) -> Verdict:
        """The attack's verdict. Whatever it does to the server, the next one finds one that works.

        The server is restarted, on the same data, where the attack has left work, where it was bad, and where
        it is `thorough`: that costs as much time as the attack itself.
        """
        verdict = Verdict(
            name=attack.name,
            family=attack.family,
            about=attack.about,
            finding=attack.finding,
            store=self._store,
            faults=[],
            slow=[],
        )
        try:
            server, samples = await self._met(attack)
            await self._prepared(attack, server)
        except (AssertionError, TimeoutError) as error:
            await self._drop()
            verdict.faults.append(f"harness: {error!r}")
            return verdict
        self._provider.forget()
        field, began_s, ended_s = await self._struck(attack, server, samples, verdict)
        runs = [
            each.run_id
            for each in samples.begun(began_s, ended_s)
            if each.run_id is not None and each.fault is None
        ]
        stays = verdict.is_good and not (attack.leaves_work or attack.settings or attack.has_second)
        if thorough or not stays:
            await self._end_neighbour()
            server = await self._restarted(attack, server, verdict) or server
        if server.alive:
            field.address = server.address
            verdict.faults += await lost(server.address, self._headers, runs)
            verdict.faults += await lost_of_attacker(field)
            if attack.judge is not None:
                await attack.judge(field)
        verdict.faults += field.complaints
        verdict.answers = {str(status): count for status, count in sorted(field.tally.items())}
        if not (stays and verdict.is_good):
            await self._drop()
        return verdict

    async def _struck(
        self, attack: Attack, server: AttackedServer, samples: Samples, verdict: Verdict
    ) -> tuple[Field, float, float]:
        quiet = await self._quiet_time(server, samples, verdict)
        field = self._field(attack, server, self._seconds)
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(max(self._seconds + OVERTIME_S, attack.limit_s)):
                await attack.strike(field)
        except TimeoutError:
            # It waits for answers that do not come: the neighbour's figures say what that means.
            field.tally[0] += 1
        except (OSError, EOFError, ValueError, LookupError, TypeError) as error:
            verdict.faults.append(f"harness: the attack broke: {error!r}")
        for connection in field.opened:
            connection.abort()
        # An attack that has said all that it has to say gets the rest of its time to work.
        await asyncio.sleep(max(0.0, began_s + self._seconds - time.monotonic()))
        ended_s = time.monotonic()
        heard = await samples.every_kind_since(ended_s, count=1, limit_s=LONGEST_WAIT_S)
        attacked = samples.begun(began_s, ended_s)
        verdict.speeds = speeds_of(quiet, attacked)
        verdict.health_ms = max((each.ms for each in attacked if each.kind == "health"), default=0.0)
        verdict.standstill_ms = standstill_ms(samples.begun(began_s - LONGEST_WAIT_S), began_s, ended_s)
        verdict.rss_peak_mb = server.take_peak_mb()
        judge_memory(verdict, alive=server.alive, over_ceiling=server.over_ceiling)
        if not attack.hurts_by_itself:
            judge_neighbour(verdict, attacked, floor_ms=attack.floor_ms)
        if not heard and not attack.hurts_by_itself:
            verdict.faults.append("the neighbour still waits for answers")
        await self._settled(attack, server, samples, verdict, ended_s, quiet)
        return field, began_s, ended_s

    async def _prepared(self, attack: Attack, server: AttackedServer) -> None:
        if attack.prepare is not None:
            async with asyncio.timeout(WARM_S):
                await attack.prepare(self._field(attack, server, WARM_S))

    def _field(self, attack: Attack, server: AttackedServer, seconds: float) -> Field:
        return Field(
            address=server.address,
            seeded=self._seeded,
            provider=self._provider,
            hostile=self._hostile,
            role=attack.role,
            ends_s=asyncio.get_running_loop().time() + seconds,
            data=self._ground.data,
            settings=self._ground.settings,
            log=server.log,
            pid=server.pid,
            beside=None if self._second is None else self._second.address,
        )

    async def _quiet_time(self, server: AttackedServer, samples: Samples, verdict: Verdict) -> list[Sample]:
        warm = await samples.every_kind_since(0.0, count=3, limit_s=WARM_S)
        since_s = time.monotonic()
        await asyncio.sleep(QUIET_S)
        await samples.every_kind_since(since_s, count=1, limit_s=LONGEST_WAIT_S)
        now = samples.begun(since_s)
        if not warm or any(each.fault for each in now):
            first = next((each.fault for each in now if each.fault), "it does not get through")
            verdict.faults.append(f"harness: the neighbour was not well before the attack: {first}")
        else:
            self._quiet.append(now)
        verdict.rss_quiet_mb = server.rss_mb
        server.take_peak_mb()
        return [each for taken in self._quiet for each in taken]

    async def _settled(
        self,
        attack: Attack,
        server: AttackedServer,
        samples: Samples,
        verdict: Verdict,
        ended_s: float,
        quiet: list[Sample],
    ) -> None:
        """Waits until the neighbour is well again and the memory given back, for some seconds."""
        allowed_mb = verdict.rss_quiet_mb + RSS_MB * BACK_SHARE
        deadline_s = ended_s + SETTLE_S
        well = False
        while server.alive and time.monotonic() < deadline_s:
            since_s = time.monotonic()
            heard = await samples.every_kind_since(since_s, count=1, limit_s=deadline_s - since_s)
            well = heard and is_settled(samples.begun(since_s), quiet)
            if well and server.rss_mb <= allowed_mb:
                break
        verdict.rss_after_mb = server.rss_mb
        verdict.rss_peak_mb = max(verdict.rss_peak_mb, server.take_peak_mb())
        if server.over_ceiling and not any("memory over" in fault for fault in verdict.faults):
            verdict.faults.append(f"memory over {CEILING_MB:,.0f} MB after the attack, killed by the harness")
        if not server.alive:
            return
        if not well:
            verdict.slow.append(f"the neighbour is not well {SETTLE_S:g} s after the attack")
        if verdict.rss_after_mb > allowed_mb:
            verdict.faults.append(f"keeps {verdict.rss_after_mb - verdict.rss_quiet_mb:,.0f} MB over quiet")

    async def _restarted(
        self, attack: Attack, server: AttackedServer, verdict: Verdict
    ) -> AttackedServer | None:
        """Stops the server in order and starts it on the same data; None where that does not work."""
        was_alive = server.alive
        verdict.stop_s = await server.stop(STOP_S)
        if was_alive and verdict.stop_s is None:
            verdict.faults.append(f"hung: SIGTERM did not end it within {STOP_S:g} s")
        again = self._server = self._start(attack)
        try:
            verdict.restart_s = await again.ready()
        except AssertionError as error:
            verdict.faults.append(f"frozen after the restart: {error}"[:200])
            return None
        if (fault := await first_run(again.address, self._headers)) is not None:
            verdict.faults.append(fault)
            return None
        return again

    async def _met(self, attack: Attack) -> tuple[AttackedServer, Samples]:
        """A server that works, with its neighbour."""
        if attack.settings or attack.has_second:
            await self._drop()
        if self._server is None or not self._server.alive:
            await self._drop()
            await self._ground.copy()
            self._server = self._start(attack)
            await self._server.ready()
            if attack.has_second:
                self._second = self._start(attack, beside=True)
                await self._second.ready()
        if self._neighbour is None:
            self._neighbour = AsyncExitStack()
            self._samples = await self._neighbour.enter_async_context(
                neighbour(self._server.address, self._seeded.neighbour_key)
            )
        return self._server, self._samples

    def _start(self, attack: Attack, *, beside: bool = False) -> AttackedServer:
        settings = self._ground.settings
        if beside:
            settings = msgspec.structs.replace(settings, data=settings.data / "beside")
            settings.data.mkdir()
        return new_server(
            settings,
            variables=attack.settings,
            ceiling_mb=CEILING_MB,
            provider_url=self._provider.base_url,
            hostile_url=self._hostile.base_url,
            provider_key=PROVIDER_KEY,
        )

    async def _end_neighbour(self) -> None:
        met, self._neighbour = self._neighbour, None
        if met is not None:
            await met.aclose()

    async def _drop(self) -> None:
        """Ends the server; the next one starts on fresh data."""
        await self._end_neighbour()
        servers = (self._server, self._second)
        self._server = self._second = None
        for server in servers:
            if server is not None:
                server.kill()

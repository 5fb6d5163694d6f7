"""One attack after the other, each between a quiet time and a restart of the server."""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.prove.attacking.attack import API, Attack, Field
from tests.prove.attacking.hostile_provider import HostileProvider
from tests.prove.attacking.http import call
from tests.prove.attacking.neighbour import MESSAGE, PLACE, Fault, Sample, Samples, neighbour, require_whole
from tests.prove.attacking.seed import Ground, Keys, StoreKind
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
)

QUIET_S = 1.0
QUIET_KEPT = 6
"""Quiet times that a p99 is taken from: the newest ones."""
WARM_S = 15.0
OVERTIME_S = 3.0
"""Beyond its time, for an attack to look at what it has done; it is cancelled then."""
LONGEST_WAIT_S = 8.0
LOOKED_AT = 30
"""Runs of the neighbour, and of the attacker, of those that there are."""
FIRST_RUN_S = 6.0


class Bout:
    """Holds the data, the provider, and the server that the next attack will meet, if one is up."""

    def __init__(
        self, store: StoreKind, ground: Ground, hostile: HostileProvider, keys: Keys, *, seconds: float
    ) -> None:
        self._store = store
        self._ground = ground
        self._hostile = hostile
        self._seconds = seconds
        self._keys = keys
        self._headers = [("Authorization", f"Bearer {keys['quiet-run']}")]
        self._server: AttackedServer | None = None
        self._second: AttackedServer | None = None
        self._neighbour: AsyncExitStack | None = None
        self._samples = Samples()
        self._quiet: deque[list[Sample]] = deque(maxlen=QUIET_KEPT)

    @classmethod
    @asynccontextmanager
    async def begun(cls, folder: Path, store: StoreKind, *, seconds: float) -> AsyncIterator[Self]:
        async with HostileProvider.serving() as hostile:
            ground = Ground(folder, store)
            bout = cls(store, ground, hostile, await ground.seed(), seconds=seconds)
            try:
                yield bout
            finally:
                await bout._drop()

    async def fight(self, attack: Attack, *, thorough: bool = False) -> Verdict:
        """The attack's verdict. Whatever it does to the server, the next one finds one that works.

        The server is restarted, on the same data, where the attack has left work, where it was bad, and where
        it is `thorough`: that costs as much time as the attack itself.
        """
        verdict = Verdict(name=attack.name, family=attack.family, store=self._store)
        try:
            server = await self._met(attack)
            if attack.prepare is not None:
                async with asyncio.timeout(WARM_S):
                    await attack.prepare(self._field(attack, server, WARM_S))
        except (AssertionError, TimeoutError) as error:
            await self._drop()
            verdict.faults.append(f"harness: {error!r}")
            return verdict
        quiet = await self._quiet_time(server, verdict)
        field = self._field(attack, server, self._seconds)
        began_s = time.monotonic()
        await self._strike(attack, field, verdict)
        ended_s = time.monotonic()
        heard = await self._samples.every_kind_since(ended_s, count=1, limit_s=LONGEST_WAIT_S)
        attacked = self._samples.begun(began_s, ended_s)
        verdict.speeds = speeds_of(quiet, attacked)
        verdict.health_ms = max((each.ms for each in attacked if each.kind == "health"), default=0.0)
        verdict.rss_peak_mb = server.take_peak_mb()
        judge_memory(verdict, alive=server.alive, over_ceiling=server.over_ceiling)
        if not attack.hurts_by_itself:
            judge_neighbour(verdict, attacked, floor_ms=attack.floor_ms, refused_share=attack.refused_share)
            if not heard:
                verdict.faults.append("the neighbour still waits for answers")
        await self._settled(server, verdict, ended_s, quiet)
        stays = verdict.is_good and not (attack.leaves_work or attack.settings or attack.has_second)
        if thorough or not stays:
            await self._end_neighbour()
            server = await self._restarted(attack, server, verdict) or server
        if server.alive:
            field.address = server.address
            runs = [each.run_id for each in attacked if each.run_id is not None and each.fault is None]
            verdict.faults += await self._lost(server.address, runs)
            verdict.faults += await _lost_of_attacker(field)
            if attack.judge is not None:
                await attack.judge(field)
        verdict.faults += field.complaints
        verdict.answers = {str(status): count for status, count in sorted(field.tally.items())}
        if not (stays and verdict.is_good):
            await self._drop()
        return verdict

    async def _strike(self, attack: Attack, field: Field, verdict: Verdict) -> None:
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

    def _field(self, attack: Attack, server: AttackedServer, seconds: float) -> Field:
        return Field(
            address=server.address,
            keys=self._keys,
            hostile=self._hostile,
            role=attack.role,
            ends_s=asyncio.get_running_loop().time() + seconds,
            data=self._ground.data,
            settings=self._ground.settings,
            log=server.log,
        )

    async def _quiet_time(self, server: AttackedServer, verdict: Verdict) -> list[Sample]:
        warm = await self._samples.every_kind_since(0.0, count=3, limit_s=WARM_S)
        since_s = time.monotonic()
        await asyncio.sleep(QUIET_S)
        await self._samples.every_kind_since(since_s, count=1, limit_s=LONGEST_WAIT_S)
        now = self._samples.begun(since_s)
        if not warm or any(each.fault for each in now):
            first = next((each.fault for each in now if each.fault), "it does not get through")
            verdict.faults.append(f"harness: the neighbour was not well before the attack: {first}")
        else:
            self._quiet.append(now)
        verdict.rss_quiet_mb = server.rss_mb
        server.take_peak_mb()
        return [each for taken in self._quiet for each in taken]

    async def _settled(
        self, server: AttackedServer, verdict: Verdict, ended_s: float, quiet: list[Sample]
    ) -> None:
        """Waits until the neighbour is well again and the memory given back, for some seconds."""
        allowed_mb = verdict.rss_quiet_mb + RSS_MB * BACK_SHARE
        deadline_s = ended_s + SETTLE_S
        well = False
        while server.alive and time.monotonic() < deadline_s:
            since_s = time.monotonic()
            heard = await self._samples.every_kind_since(since_s, count=1, limit_s=deadline_s - since_s)
            well = heard and is_settled(self._samples.begun(since_s), quiet)
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
        body = b'{"message": "%s"}' % MESSAGE.encode()
        how: dict[str, Any] = {"headers": self._headers, "timeout_s": FIRST_RUN_S}
        done = await call(again.address, "POST", f"{PLACE}/execute", body, **how)
        if done.status == 200:
            return again
        verdict.faults.append(f"after the restart a run gave {done.status}: {done.fault}{done.body[:200]!r}")
        return None

    async def _lost(self, address: tuple[str, int], runs: Sequence[str]) -> list[str]:
        """What is wrong with the first of the neighbour's runs that lacks an event or a good end."""
        try:
            for run_id in random.sample(runs, min(LOOKED_AT, len(runs))):
                await require_whole(address, run_id, self._headers)
        except Fault as fault:
            return [f"lost: {fault}"[:300]]
        return []

    async def _met(self, attack: Attack) -> AttackedServer:
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
                neighbour(self._server.address, self._keys["quiet-run"])
            )
        return self._server

    def _start(self, attack: Attack, *, beside: bool = False) -> AttackedServer:
        settings = self._ground.settings
        if beside:
            settings = msgspec.structs.replace(settings, data=settings.data / "beside")
            settings.data.mkdir()
        return new_server(
            settings, variables=attack.settings, ceiling_mb=CEILING_MB, provider_url=self._hostile.base_url
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


async def _lost_of_attacker(field: Field) -> list[str]:
    """The first run of the attacker's that was acknowledged and is not there."""
    runs = field.acknowledged
    for run_id, role in random.sample(runs, min(LOOKED_AT, len(runs))):
        target = f"{API}/flow-runs/{run_id}/trace"
        found = await call(field.address, "GET", target, headers=field.headers(role))
        # A large trace may take its time, or be refused to one who asks for too much at once.
        if found.status == 404:
            return [f"lost: the acknowledged run {run_id} is not there"]
    return []

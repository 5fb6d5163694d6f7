"""The health of a process, as `/health` reports it, and whether calls should come to it, as `/ready` does.

A store that can be read may still refuse writes, as on a full disk, so a write is tried.
"""

import asyncio
import logging
import math
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

import runglass
from runglass.errors import StoreError, StoreUnreachable
from runglass.runtime.runtime import Runtime

log = logging.getLogger(__name__)

LOW_DISK_BYTES = 100_000_000
NO_WORKER = "no process executes runs, so all that come wait; `runglass worker` is one that does"


class Health(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """`ok`, `degraded` where the server does its work and an operator should look, or `unavailable`.

    `executes_runs` says whether this process does, or leaves them to workers.
    """

    status: Literal["ok", "degraded", "unavailable"]
    version: str = ""
    executes_runs: bool
    reasons: list[str] = []
    set_aside: int = 0


class Readiness(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """`ready`, or `unready` with the reasons for which calls should go to another process."""

    status: Literal["ready", "unready"]
    reasons: list[str] = []


class HealthCheck:
    """Checks the health of a runtime.

    It waits for the store no longer than `wait_s`: a probe has its answer within a second, even of a silent
    store. Between two writes that are tried are `every_s` at least, however many callers ask.
    """

    def __init__(self, runtime: Runtime, *, wait_s: float = 0.8, every_s: float = 1.0) -> None:
        self._runtime = runtime
        self._wait_s = wait_s
        self._every_s = every_s
        self._reading: asyncio.Task[str | None] | None = None
        self._checking: asyncio.Task[str | None] | None = None
        self._checked_at = -math.inf
        self._fault: str | None = None
        self._lacks_worker = False
        self._free_bytes: int | None = None

    async def report(self) -> Health:
        """The health now; that of writes is at most a second old."""
        failing = [work for work in self._runtime.supervised if work.failing]
        down = list(await self._store_faults())
        down += [f"{work.name} has failed and is restarted" for work in failing if work.vital]
        weak = [f"{work.name} has failed and is restarted" for work in failing if not work.vital]
        if self._free_bytes is not None and self._free_bytes < LOW_DISK_BYTES:
            weak.append(f"the disk has {self._free_bytes // 1_000_000} MB left")
        if (fault := self._runtime.bus.fault) is not None:
            weak.append(fault)
        if self._lacks_worker:
            weak.append(NO_WORKER)
        set_aside = len(self._runtime.engine.active.set_aside)
        if set_aside:
            weak.append(f"unreadable, quarantined runs: {set_aside}; the log names them")
        stopped = [reason for reason in down if reason is not None]
        return Health(
            status="unavailable" if stopped else "degraded" if weak else "ok",
            version=runglass.__version__,
            executes_runs=self._runtime.settings.executes_runs,
            reasons=[*stopped, *weak],
            set_aside=set_aside,
        )

    async def readiness(self) -> Readiness:
        """Whether the process takes calls or claims runs: its store answers, and it is not stopping."""
        reasons = ["the process is being stopped"] if self._runtime.engine.gate.closed else []
        reasons += filter(None, await self._store_faults())
        return Readiness(status="unready" if reasons else "ready", reasons=reasons)

    async def _store_faults(self) -> tuple[str | None, str | None]:
        # All callers meanwhile share the tasks: a silent store keeps one connection, and not one of each.
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        if self._checking is None and time.monotonic() - self._checked_at >= self._every_s:
            self._checking = asyncio.create_task(self._write())
        reading, checking = self._reading, self._checking
        # That one of them is cancelled does not cancel these.
        await asyncio.wait(filter(None, (reading, checking)), timeout=self._wait_s)
        silent = f"the store has not answered a {{}} for {self._wait_s:g} s"
        read_fault = reading.result() if reading.done() else silent.format("read")
        if checking is None:
            return read_fault, self._fault
        return read_fault, checking.result() if checking.done() else silent.format("write")

    async def _read(self) -> str | None:
        try:
            await self._runtime.store.project(0)
        except StoreError as error:
            return _public_reason("the store cannot be read", error)
        finally:
            self._reading = None
        return None

    async def _write(self) -> str | None:
        try:
            await self._runtime.store.check_write()
            self._fault = None
            settings = self._runtime.settings
            if not settings.executes_runs:
                now, leases = self._runtime.store.clock.now(), await self._runtime.store.leases()
                held = [each for each in leases if datetime.fromisoformat(each.expires_at) > now]
                lacks = not any(each.process.executes_runs for each in held)
                if lacks and not self._lacks_worker:
                    log.warning(NO_WORKER)
                self._lacks_worker = lacks
            # The disk of a PostgreSQL is on a machine of its own.
            if settings.postgres is None:
                self._free_bytes = await asyncio.to_thread(_free_bytes, settings.database.parent)
        except StoreError as error:
            self._fault = _public_reason("the store takes no writes", error)
        finally:
            self._checked_at, self._checking = time.monotonic(), None
        return self._fault


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        # Some file systems do not tell their free space.
        return None


def _public_reason(what: str, error: StoreError) -> str:
    """The reason without paths of this machine and addresses of others, which go to the log alone."""
    log.error("%s: %s", what, error)
    if isinstance(error, StoreUnreachable) or error.__cause__ is None:
        return what
    return f"{what}: {error.__cause__}"

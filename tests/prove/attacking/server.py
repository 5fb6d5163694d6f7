"""The server under attack: a process of its own, with few files and two cores, and its children."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from runglass.config.settings import Settings
from tests.e2e.command import environment
from tests.ports import free_port
from tests.process_guard import below
from tests.prove.attacking.http import PROVIDER_KEY, call

OPEN_FILES = 1024
CORES = 2
GRACE_S = 2.0
"""The server's `stop_grace_s`."""
START_LIMIT_S = 15.0
SAMPLE_S = 0.1
MB = 1_000_000
PAGE = os.sysconf("SC_PAGE_SIZE")


class AttackedServer:
    """One life of the server. `over_ceiling` is set where it was killed because it took too much memory."""

    def __init__(self, data: Path, *, variables: Mapping[str, str], ceiling_mb: float) -> None:
        port = free_port()
        self.address = ("127.0.0.1", port)
        self.log = data / "server.log"
        self.over_ceiling = False
        self._peak_bytes = 0
        self._ceiling_bytes = ceiling_mb * MB
        self._ending = threading.Event()
        self._now_bytes = 0
        self._born: dict[int, int] = {}
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runglass", "serve", "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=data,
                env=environment(RUNGLASS_DATA=str(data), RUNGLASS_STOP_GRACE_S=f"{GRACE_S:g}")
                | dict(variables),
                start_new_session=True,
            )
        # Before it reads how many files it may have, and starts a child.
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
        os.sched_setaffinity(self._process.pid, sorted(os.sched_getaffinity(0))[:CORES])
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def rss_mb(self) -> float:
        return self._now_bytes / MB

    def take_peak_mb(self) -> float:
        peak, self._peak_bytes = self._peak_bytes, 0
        return max(peak / MB, self.rss_mb)

    async def ready(self) -> float:
        """Seconds until it answers `/health`. Raises AssertionError where it does not start."""
        began = time.monotonic()
        while time.monotonic() - began < START_LIMIT_S and self.alive:
            if (await call(self.address, "GET", "/health", timeout_s=2.0)).status == 200:
                return time.monotonic() - began
            await asyncio.sleep(0.03)
        raise AssertionError(
            f"the server did not answer within {START_LIMIT_S:g} s of its start:"
            f" {self.log.read_text(encoding='utf-8', errors='replace')[-600:]}"
        )

    async def stop(self, limit_s: float) -> float | None:
        """Seconds from SIGTERM to its end; None where it does not end, and is then killed."""
        began = time.monotonic()
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, limit_s)
        except subprocess.TimeoutExpired:
            return None
        else:
            return time.monotonic() - began
        finally:
            self.kill()

    def kill(self) -> None:
        self._ending.set()
        self._watching.join(2)
        # By when it was born: the id of one that has ended may be another's now.
        known = self._born | {pid: _stat(pid)[0] for pid in below(self._process.pid)}
        self._process.kill()
        self._process.wait(10)
        for pid, born in known.items():
            if born and _stat(pid)[0] == born:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _watch(self) -> None:
        while not self._ending.wait(SAMPLE_S):
            stats = {pid: _stat(pid) for pid in below(self._process.pid)}
            self._born = {pid: born for pid, (born, _) in stats.items()}
            self._now_bytes = _stat(self._process.pid)[1] + sum(rss for _, rss in stats.values())
            self._peak_bytes = max(self._peak_bytes, self._now_bytes)
            if self._now_bytes > self._ceiling_bytes and self.alive:
                self.over_ceiling = True
                self._process.kill()
                return


def new_server(
    settings: Settings, *, variables: Mapping[str, str], ceiling_mb: float, provider_url: str
) -> AttackedServer:
    """A server on a free port that knows the provider, and what its models cost."""
    prices = {
        "fake:dear": {"input_per_mtok": "0", "output_per_mtok": "100"},
        "evil:model": {"input_per_mtok": "100", "output_per_mtok": "100"},
    }
    known = {
        "RUNGLASS_PROVIDERS": json.dumps(dict.fromkeys(["fake", "evil"], provider_url)),
        "RUNGLASS_PROVIDER_KEYS": json.dumps(dict.fromkeys(["fake", "evil"], PROVIDER_KEY)),
        "RUNGLASS_PRICES": json.dumps(prices),
    }
    if settings.store is not None:
        known["RUNGLASS_STORE"] = settings.store
    return AttackedServer(settings.data, variables=known | dict(variables), ceiling_mb=ceiling_mb)


def _stat(pid: int) -> tuple[int, int]:
    """When a process was born and how many bytes it has in memory; zeros where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return 0, 0
    return int(fields[19]), int(fields[21]) * PAGE

"""The server under attack: a process of its own, with few files and two cores, and its children."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from runglass.config.settings import Settings
from tests.prove.attacking.http import call
from tests.prove.attacking.places import ROOT
from tests.prove.attacking.seed import HOSTED
from tests.prove.killing.server import free_port

OPEN_FILES = 1024
CORES = 2
GRACE_S = 2.0
"""The server's `stop_grace_s`."""
START_LIMIT_S = 15.0
SAMPLE_S = 0.1
MB = 1_000_000
PAGE = os.sysconf("SC_PAGE_SIZE")

# Done in the process itself before it becomes the server: its limits, and that it dies with the harness.
_LAUNCH = """
import ctypes, os, resource, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[2])])
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


class Process(NamedTuple):
    """A process as the kernel tells it; `started` makes the id unmistakable."""

    pid: int
    parent: int
    started: int
    rss_bytes: int


class AttackedServer:
    """One life of the server. `over_ceiling` is set where it was killed because it took too much memory."""

    def __init__(
        self, data: Path, *, variables: Mapping[str, str], ceiling_mb: float, log: Path, port: int
    ) -> None:
        self.address = ("127.0.0.1", port)
        self.log = log
        self.over_ceiling = False
        self._peak_bytes = 0
        self._ceiling_bytes = ceiling_mb * MB
        self._ending = threading.Event()
        self._tree: list[Process] = []
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _LAUNCH, str(OPEN_FILES), str(CORES)),
                    *("-m", "runglass", "serve", "--data", str(data), "--port", str(port)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=data,
                env=_environment() | {"RUNGLASS_STOP_GRACE_S": f"{GRACE_S:g}"} | dict(variables),
                start_new_session=True,
            )
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def rss_mb(self) -> float:
        """Resident memory of the server and its children, now."""
        return sum(each.rss_bytes for each in self._tree) / MB

    def take_peak_mb(self) -> float:
        """The most that it has been since this was last asked."""
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
            f"the server did not answer within {START_LIMIT_S:g} s of its start: {self.said()[-600:]}"
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
        """Ends it and what it has started, each by its own id."""
        self._ending.set()
        self._watching.join(2)
        tree = _tree(self.pid)
        if self.alive:
            self._process.kill()
        self._process.wait(10)
        known = {(each.pid, each.started) for each in [*self._tree, *tree]}
        for process in _processes():
            if (process.pid, process.started) in known and process.pid != self.pid:
                _end(process.pid)

    def said(self) -> str:
        """All that it wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _watch(self) -> None:
        while not self._ending.wait(SAMPLE_S):
            self._tree = _tree(self.pid)
            now = sum(each.rss_bytes for each in self._tree)
            self._peak_bytes = max(self._peak_bytes, now)
            if now > self._ceiling_bytes and self.alive:
                self.over_ceiling = True
                self._process.kill()
                return


def new_server(
    settings: Settings,
    *,
    variables: Mapping[str, str],
    ceiling_mb: float,
    provider_url: str,
    hostile_url: str,
    provider_key: str,
) -> AttackedServer:
    """A server on a free port that knows the providers and what their models cost."""
    prices = {
        f"fake:{name}": {"input_per_mtok": "0", "output_per_mtok": usd}
        for name, usd in (("dear", "100"), ("cheap", "1"))
    } | {name: {"input_per_mtok": "100", "output_per_mtok": "100"} for name in ("evil:model", *HOSTED)}
    hosted = [model.partition(":")[0] for model in HOSTED]
    known = {
        "RUNGLASS_PROVIDERS": json.dumps({"fake": provider_url, "evil": hostile_url}),
        "RUNGLASS_PROVIDER_KEYS": json.dumps(dict.fromkeys(["fake", "evil", *hosted], provider_key)),
        "RUNGLASS_PRICES": json.dumps(prices),
        **dict.fromkeys(HOSTED.values(), hostile_url),
    }
    if settings.store is not None:
        known["RUNGLASS_STORE"] = settings.store
    data = settings.data
    return AttackedServer(
        data,
        variables=known | dict(variables),
        ceiling_mb=ceiling_mb,
        log=data / "server.log",
        port=free_port(),
    )


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNGLASS_")}
    return kept | {"PYTHONPATH": str(ROOT / "src")}


def _tree(root: int) -> list[Process]:
    found = _processes()
    inside = {root}
    # Children are listed after their parents but where ids have come round, so a few rounds do.
    for _ in range(4):
        inside |= {each.pid for each in found if each.parent in inside}
    return [each for each in found if each.pid in inside]


def _processes() -> list[Process]:
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path("/proc", name, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            # It has just ended.
            continue
        fields = stat.rpartition(")")[2].split()
        found.append(Process(int(name), int(fields[1]), int(fields[19]), int(fields[21]) * PAGE))
    return found


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It saw by itself that the server is gone.
        return

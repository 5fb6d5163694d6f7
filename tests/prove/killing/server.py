"""A server on fixed data and a fixed port that is started and killed, again and again, and its program.

The other end of `child.py`: knows processes and nothing of runs. The program is this one, or an older one out
of the history of the repository.
"""

import asyncio
import contextlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from shutil import rmtree
from signal import SIGKILL, SIGTERM, pidfd_send_signal
from typing import NamedTuple, Self

import msgspec
from msgspec.structs import replace

from runglass.config.settings import Settings
from tests.prove.child import Start, Told

ROOT = Path(__file__).parents[3]
CHILD = Path("tests/prove/child.py")


class Program(NamedTuple):
    """A tree of the repository, whose processes use the libraries of this environment."""

    name: str
    root: Path

    def environment(self, *, tests: Path | None = None) -> dict[str, str]:
        """What lets Python find this program, with the `tests` of its own tree or of another one."""
        places = [str(self.root / "src"), str(tests or self.root)]
        return os.environ | {"PYTHONPATH": os.pathsep.join(places)}

    async def run(self, *arguments: str, tests: Path | None = None) -> str:
        """What `python -m ARGUMENTS` prints. Raises AssertionError if it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.root,
            env=self.environment(tests=tests),
        )
        said, complaint = await process.communicate()
        assert process.returncode == 0, f"{self.name}: {arguments[0]}: {complaint.decode()[-2000:]}"
        return said.decode()


THIS = Program("this program", ROOT)


@contextmanager
def taken_from_history(commit: str) -> Iterator[Program]:
    """The program as it was at the commit, until the block ends.

    Raises AssertionError where the history has no such commit, or the program of that time had no workers.
    """
    asked = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert found.returncode == 0, (
        f"the history of {ROOT} has no commit {commit!r}; a shallow clone gets all of it by"
        " `git fetch --unshallow`"
    )
    name = found.stdout.strip()
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", name, "src", "tests"], capture_output=True, check=True
    )
    with tempfile.TemporaryDirectory(prefix="runglass-older-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
            tree.extractall(folder, filter="data")
        program = Program(f"the program of {name[:9]}", Path(folder))
        child = program.root / CHILD
        has_workers = child.exists() and "serves:" in child.read_text(encoding="utf-8")
        assert has_workers, f"at {commit!r} the proofs knew no workers yet; name a newer commit"
        yield program


WARM_LIMIT_S = 600.0
START_LIMIT_S = 20.0
STOP_LIMIT_S = 60.0


@contextmanager
def kept_after_a_lie(prefix: str) -> Iterator[Path]:
    """A folder until the block ends; after an AssertionError it stays, and the lie says where."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    except AssertionError as lie:
        lie.add_note(f"data and logs are kept in {folder}")
        raise
    except BaseException:
        rmtree(folder)
        raise
    rmtree(folder)


class KilledServer:
    """One server after the other, each a process of its own.

    `up` is set while it accepts, `stopping` from the moment that it is told to stop. `points` are all crash
    points that it has been seen to pass; `crashed` is the one at which the last one killed itself, None if it
    was killed from outside. `template` is what each one starts with.
    """

    def __init__(self, process: asyncio.subprocess.Process, settings: Settings) -> None:
        self.template = Start(settings=settings, log=settings.data / "server.log")
        self.base_url = f"http://127.0.0.1:{settings.port}/api/v1"
        self.points: set[str] = set()
        self.crashed: str | None = None
        self.ready_at = ""
        self.exit_code = 0
        self.stopping = False
        self.up = asyncio.Event()
        self.gone = asyncio.Event()
        self.gone.set()
        self._process = process
        self._pidfd: int | None = None
        self._is_doomed = False
        self._known = asyncio.Event()
        self._warm = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def made(cls, settings: Settings, program: Program = THIS) -> AsyncIterator[Self]:
        """A server that can be started, until the block ends, and then lives no more."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.prove.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=program.root,
            env=program.environment(),
        )
        server = cls(process, settings)
        listening = asyncio.create_task(server._listen())
        try:
            async with asyncio.timeout(WARM_LIMIT_S):
                await server._warm.wait()
            yield server
        finally:
            server.end()
            await process.wait()
            await listening

    async def start(self, *, point: str | None = None, nth: int = 1, linger_s: float = 0.0) -> None:
        """Forks a server, which may die at a point; returns when it has a process."""
        assert self.gone.is_set(), "the server before this one still lives"
        self.crashed = None
        self.ready_at = ""
        self.stopping = False
        self.gone.clear()
        self._is_doomed = False
        self._known.clear()
        start = replace(self.template, point=point, nth=nth, linger_s=linger_s)
        assert self._process.stdin is not None
        self._process.stdin.write(start.line())
        async with asyncio.timeout(START_LIMIT_S):
            await self._known.wait()

    async def ready_or_gone(self) -> None:
        """Returns when the server accepts, or lives no more."""
        up, gone = asyncio.create_task(self.up.wait()), asyncio.create_task(self.gone.wait())
        await asyncio.wait({up, gone}, timeout=START_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        for task in (up, gone):
            task.cancel()

    async def ready(self) -> None:
        """Returns when the server accepts. Raises AssertionError if it ends or takes too long."""
        await self.ready_or_gone()
        if not self.up.is_set():
            raise AssertionError(
                f"the server did not start again (exit code {self.exit_code}): {self.said()}"
            )

    def kill(self) -> None:
        """SIGKILL, to this server and no other; nothing if it has died by itself."""
        # One that is just being forked has no id yet.
        self._is_doomed = self._pidfd is None and not self.gone.is_set()
        self.signal(SIGKILL)

    def end(self) -> None:
        """SIGKILL, and to its parent that no other one follows; returns before they are gone."""
        self.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not self._warm.is_set() and self._process.returncode is None:
            # The parent still imports, and has forked none.
            self._process.kill()

    async def stop(self) -> None:
        """SIGTERM; returns when the process has ended in good order. Raises AssertionError if it does not."""
        self.stopping = True
        self.signal(SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_LIMIT_S):
                await self.gone.wait()
        if not self.gone.is_set() or self.exit_code != 0:
            raise AssertionError(f"the server did not stop in order ({self.exit_code}): {self.said()}")

    def signal(self, number: int) -> None:
        # By descriptor: its parent may have waited for the process already, and its id be another's now.
        if self._pidfd is not None and not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                pidfd_send_signal(self._pidfd, number)

    def said(self) -> str:
        log = self.template.log
        return log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else ""

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = msgspec.json.decode(line, type=Told)
            match told.kind:
                case "warm":
                    self._warm.set()
                case "forked":
                    with contextlib.suppress(ProcessLookupError):
                        self._pidfd = os.pidfd_open(told.pid)
                    self._known.set()
                    if self._is_doomed:
                        self.signal(SIGKILL)
                case "ready":
                    self.ready_at = told.at
                    self.up.set()
                case "passed":
                    self.points.add(told.text)
                case "crash":
                    self.crashed = told.text
                case "gone":
                    self.up.clear()
                    self.exit_code = int(told.text)
                    self.gone.set()
                    if self._pidfd is not None:
                        os.close(self._pidfd)
                        self._pidfd = None

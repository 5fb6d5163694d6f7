"""The programs that processes run: this one, and older ones out of the history of the repository."""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

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

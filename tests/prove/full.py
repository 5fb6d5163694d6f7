"""`prove full`: a server whose disk is full reads on, deletes runs, and goes on by itself once they are gone.

The disk is real: a file system of its own in memory, which only processes of the proof see. It is filled by
runs to the last byte, three times: the second time the server is killed and started again on the full disk,
the third time a run is deleted without one.
Needs Linux, and the right to make a namespace of one's own (`unshare --map-root-user`).
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.contract.wire import ANYTHING, detail, refusal
from tests.e2e.command import runglass, served
from tests.waiting import eventually

DISK_MB = 64
CAPTURED = {"RUNGLASS_CAPTURE": "full"}
LARGE = {"parameters": {"text": "sesame " * 20_000}}
MOUNT = 'mount -t tmpfs -o size="$1"m none "$2" && echo mounted && exec cat'


class Disk:
    """A small disk at `folder`, for commands that are started in the namespace of process `holder`."""

    def __init__(self, folder: Path, holder: int) -> None:
        self.folder = folder
        self._seen_from_here = Path(f"/proc/{holder}/root{folder}")
        self.inside = ["nsenter", f"--target={holder}", "--user", "--mount", "--preserve-credentials"]

    def fill(self) -> None:
        eater = os.open(self._seen_from_here / "eater", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            while os.write(eater, bytes(4096)):
                pass
        except OSError:
            assert os.statvfs(self._seen_from_here).f_bavail == 0
        finally:
            os.close(eater)


@contextmanager
def small_disk() -> Iterator[Disk]:
    with (
        tempfile.TemporaryDirectory(prefix="runglass-full-") as folder,
        subprocess.Popen(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", MOUNT, "sh", str(DISK_MB), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder,
    ):
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "mounted\n", "no disk of its own could be made"
            yield Disk(Path(folder), holder.pid)
        finally:
            holder.kill()


def execute(http: httpx2.Client, body: dict[str, Any] = LARGE) -> httpx2.Response:
    return http.post("/seq/acme/demo/anything/execute", json=body)


def health(http: httpx2.Client) -> httpx2.Response:
    return http.get(f"{str(http.base_url).removesuffix('/api/v1/')}/health")


def fill_with_runs(disk: Disk, http: httpx2.Client) -> list[str]:
    """Starts runs until the disk is full, and checks what the server does; returns runs that have ended."""
    while execute(http).status_code == 200:
        pass
    disk.fill()
    # What is free inside of the files is used up first; a run may break off in its middle.
    for body in (LARGE, {}):
        while (answer := execute(http, body)).status_code != 503:
            assert answer.status_code == 200 or detail(answer)["executionId"]
        assert refusal(answer, "`runglass runs delete`") == (503, "UNAVAILABLE")
    listed = http.get("/flow-runs", params={"limit": 100, "q": "status:completed"}).json()["runs"]
    ended: list[str] = [run["id"] for run in listed]
    assert http.get(f"/flow-runs/{ended[-1]}/trace").status_code == 200
    eventually(lambda: health(http).status_code == 503)
    assert health(http).json()["reasons"][0] == "the store takes no writes: database or disk is full"
    return ended


def delete_some(http: httpx2.Client, runs: list[str]) -> None:
    """Deletes half of the runs; returns once the server goes on by itself."""
    for run in runs[::2]:
        answer = http.delete(f"/flow-runs/{run}?purge=true")
        assert answer.status_code == 202, answer.text
    eventually(lambda: execute(http).status_code == 200)
    eventually(lambda: health(http).status_code == 200)


def full() -> list[str]:
    with small_disk() as disk:
        made = runglass("keys", "create", "--create", "acme/demo", "--data", disk.folder, inside=disk.inside)
        assert made.returncode == 0, made.stderr
        key = made.stdout.strip()
        with served(disk.folder, key, env=CAPTURED, inside=disk.inside) as (process, http):
            assert http.put("/flows/acme/demo/anything", content=ANYTHING.encode()).status_code == 200
            first = fill_with_runs(disk, http)
            delete_some(http, first)
            second = fill_with_runs(disk, http)
            process.kill()
        with served(disk.folder, key, env=CAPTURED, inside=disk.inside) as (process, http):
            delete_some(http, second)
            third = fill_with_runs(disk, http)
            process.kill()
        deleted = runglass("runs", "delete", third[0], "--yes", "--data", disk.folder, inside=disk.inside)
        assert deleted.returncode == 0, deleted.stderr
    return [
        f"a disk of {DISK_MB} MB was full with {len(first)} runs; half were deleted, and the server went on",
        f"full again with {len(second)} runs, and killed: it started, half were deleted, and it went on",
        f"full with {len(third)} runs, and killed: a command deleted one",
    ]

"""The folder of the data: private from the start, and locked for as long as its process lives."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runglass.config.settings import Settings, SettingsError
from runglass.flows.parser import parse_flow
from runglass.runtime.composition import open_runtime, open_store
from runglass.runtime.runtime import push_flow
from runglass.store.data_folder import Announced, DataInUse, announce, exclusive, running_server, watching
from tests.e2e.command import failing_disk


@pytest.fixture
def open_handed() -> Iterator[None]:
    """New files are for everybody, unless whoever makes them says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("open_handed")
@pytest.mark.parametrize("opened", [open_runtime, open_store])
async def test_folder_and_files_are_private_from_the_start(tmp_path: Path, opened: object) -> None:
    folder = tmp_path / "above" / "data"
    made: set[str] = set()
    async with opened(Settings(data=folder)) as running:  # type: ignore[operator]
        store = getattr(running, "store", running)
        project = await store.ensure_project("acme", "demo")
        await push_flow(store, project, parse_flow("slug: a\nsteps: [{id: a, type: passthrough}]\n"))
        assert rights(folder) == 0o700
        for file in folder.iterdir():
            made.add(file.suffix)
            assert rights(file) == 0o600, file
    assert {".db", ".db-wal"} <= made
    assert (".lock" in made) == (opened is open_runtime)


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "said"),
    [
        (0o777, 0o600, ["others on this machine may change files"]),
        (0o1777, 0o600, []),
        (0o755, 0o644, ["others on this machine may read the database"]),
    ],
)
async def test_data_that_others_can_reach_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, folder_mode: int, file_mode: int, said: list[str]
) -> None:
    settings = Settings(data=tmp_path / "data")
    async with open_store(settings):
        pass
    settings.database.chmod(file_mode)
    settings.data.chmod(folder_mode)
    caplog.set_level("WARNING", logger="runglass")
    async with open_store(settings):
        pass
    assert len(caplog.messages) == len(said)
    assert all(part in message for part, message in zip(said, caplog.messages, strict=True))
    assert rights(settings.database) == file_mode


def test_a_server_is_found_from_when_its_address_is_written_until_it_has_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "runs.db"
    database.touch()
    stale = tmp_path / "runs.db.address"
    stale.write_text("http://127.0.0.1:1")
    assert running_server(database) is None
    with exclusive(database):
        for is_being_written in (False, True):
            if is_being_written:
                stale.touch()
            with pytest.raises(DataInUse):
                running_server(database)
        for is_of_watch in (True, False):
            announce(database, Announced("http://127.0.0.1:2", is_of_watch))
            assert running_server(database) == ("http://127.0.0.1:2", is_of_watch)
        assert stale.read_text() == "http://127.0.0.1:2", "as the version before reads it"
        with failing_disk(0):
            announce(database, Announced("http://127.0.0.1:2"))
        assert "its address cannot be written" in caplog.text
        with pytest.raises(DataInUse):
            running_server(database)
    assert running_server(database) is None


def test_an_address_that_cannot_be_deleted_is_reported_and_leaves_no_lock(tmp_path: Path) -> None:
    database, address = tmp_path / "runs.db", tmp_path / "runs.db.address"
    with exclusive(database):
        address.mkdir()
    with pytest.raises(SettingsError, match=r"runs\.db\.address"), exclusive(database):
        pass
    address.rmdir()
    with exclusive(database):
        pass


def test_a_link_to_a_database_is_the_database(tmp_path: Path) -> None:
    """Its lock is that of the file: else two processes would run flows on it."""
    here, link = Settings(data=tmp_path / "here"), Settings(data=tmp_path)
    link.database.symlink_to(here.database)
    with exclusive(here.database):
        here.database.touch()
        announce(here.database, Announced("http://127.0.0.1:2"))
        assert running_server(link.database) == Announced("http://127.0.0.1:2")
    assert running_server(link.database) is None


def test_a_watch_knows_whether_it_is_the_only_one(tmp_path: Path) -> None:
    database = tmp_path / "data" / "runs.db"
    with watching(database) as is_alone:
        assert is_alone()
        with watching(database) as is_alone_too:
            # More than once: it stays known itself.
            assert not any((is_alone(), is_alone_too(), is_alone(), is_alone_too()))
        assert is_alone()


KILLED_WHILE_IT_BEGINS_A_PROCESS = """
import ctypes, os, signal, sys
from pathlib import Path
from runglass.store.data_folder import exclusive

with exclusive(Path(sys.argv[1])):
    # Of the system and not of Python, as the fork before an exec: what Python does in a fork is not done.
    if ctypes.CDLL(None).fork():
        os.kill(os.getpid(), signal.SIGKILL)
    # What is opened last is closed last as well, after the lock.
    os.dup(1)
    # Until the test ends it.
    os.read(0, 1)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_process_that_a_killed_one_had_just_begun_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "runglass.db"
    command = [sys.executable, "-c", KILLED_WHILE_IT_BEGINS_A_PROCESS, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.wait() < 0
        stdin, stdout = killed.stdin, killed.stdout
        assert stdin is not None
        assert stdout is not None

        def end_it(seconds: float) -> None:
            stdin.close()
            assert stdout.read() == b"", "all that hold it are gone"

        # The lock is waited for in sleeps.
        monkeypatch.setattr(time, "sleep", end_it)
        with exclusive(database):
            assert stdin.closed

"""`runglass data`: what a database takes, a smaller one, a copy, and whether all in it is true."""

import base64
import errno
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runglass.cli.exit_codes import Exit
from runglass.errors import StoreError
from runglass.store.data_folder import exclusive
from runglass.store.sqlite.database_file import opened
from runglass.testing import running_server
from tests.contract.wire import ANYTHING, ENDLESS, GRID, execute, http_for, start, until_event
from tests.e2e.command import START, environment, failing_disk, started
from tests.e2e.conftest import Printed
from tests.servers import served
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    with served(GRID, ENDLESS, data=data, capture="full") as (server, http):
        for _ in range(3):
            execute(http, "grid", parameters={"rows": [[11]], "x": "y" * 5000})
        until_event(http, start(server, "endless"), "step_started", nth=2)
    return data


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A data folder with three runs that have ended and one that was left off, and no server."""
    return shutil.copytree(written, tmp_path / "data")


@pytest.fixture
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "runglass.db", isolation_level=None)) as connection:
        yield connection


def test_usage_adds_up_by_project(folder: Path, printed: Printed, database: sqlite3.Connection) -> None:
    database.execute("INSERT INTO project (org, name) VALUES ('acme', 'empty')")
    database.execute(
        "INSERT INTO call_answer (project_id, key, run_no, answered_at, answer)"
        " SELECT project_id, 'key', no, '2026-01-01T00:00:00.000Z', x'6b' FROM run LIMIT 1"
    )
    found = json.loads(printed("data", "usage", "--data", folder, "--json").out)
    demo, empty = found["projects"]

    def total(what: str, *tables: str) -> int:
        return sum(database.execute(f"SELECT {what} FROM {each}").fetchone()[0] for each in tables)

    assert (demo["org"], demo["project"], demo["runs"]) == ("acme", "demo", 4)
    assert demo["events"] == total("count(*)", "event")
    assert demo["eventBytes"] == total("sum(length(data))", "event") > 3 * 5000
    assert demo["steps"] == total("count(*)", "step", "step_attempt")
    assert demo["stepBytes"] == total("sum(length(data))", "step", "step_attempt")
    answers = total("sum(length(result))", "run_outcome") + total("sum(length(answer))", "call_answer")
    assert demo["outcomeBytes"] == answers
    waiting = total("sum(length(request))", "run_request") + total("sum(length(data))", "checkpoint")
    assert demo["openBytes"] == waiting
    assert {name: value for name, value in empty.items() if value} == {"org": "acme", "project": "empty"}
    assert found["fileBytes"] >= demo["eventBytes"] + demo["stepBytes"]
    assert (found["givesBack"], found["purgedRuns"]) == (True, 0)

    out, err = printed("data", "usage", "--data", folder)
    assert err == ""
    lines = out.splitlines()
    assert lines[1].split()[:3] == ["acme/demo", "4", f"{demo['events']:,}"]
    assert lines[-1].startswith("file ")


def test_vacuum_makes_an_older_file_smaller_and_one_that_gives_back(
    folder: Path, printed: Printed, database: sqlite3.Connection
) -> None:
    path = folder / "runglass.db"
    database.execute("PRAGMA auto_vacuum = NONE")
    database.execute("VACUUM")
    database.execute("CREATE TABLE large (data BLOB)")
    database.execute("INSERT INTO large VALUES (zeroblob(5000000))")
    database.execute("DROP TABLE large")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    before = path.stat().st_size
    assert before > 5_000_000
    told = json.loads(printed("data", "usage", "--data", folder, "--json").out)
    assert told["freeBytes"] >= 5_000_000
    assert not told["givesBack"]
    assert "runglass data vacuum" in printed("data", "usage", "--data", folder).err

    with exclusive(path):
        refused = printed("data", "vacuum", "--data", folder, code=Exit.FAILED)
    assert (refused.out, "another process runs flows" in refused.err) == ("", True)
    assert printed("data", "vacuum", "--data", folder).out.startswith("5.")
    assert path.stat().st_size < before - 4_900_000
    told = json.loads(printed("data", "usage", "--data", folder, "--json").out)
    assert (told["freeBytes"], told["givesBack"]) == (0, True)
    printed("data", "check", "--all", "--data", folder)


def test_a_backup_is_whole_though_the_server_writes_and_can_be_started_from(
    tmp_path: Path, printed: Printed
) -> None:
    target = tmp_path / "copy" / "runglass.db"
    target.parent.mkdir()
    with served(ANYTHING, data=tmp_path / "data", capture="full") as (server, http):
        run = execute(http, "anything", parameters={"x": 1})
        out, _ = printed("data", "backup", target, "--data", tmp_path / "data")
        assert out.startswith(str(target))
        execute(http, "anything", parameters={"x": 2})
        trace = http.get(f"/flow-runs/{run}/trace").json()
    assert [file.name for file in target.parent.iterdir()] == ["runglass.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    printed("data", "check", "--all", "--data", target.parent)
    with running_server(data=target.parent) as restored, http_for(restored, server.key) as http:
        assert [each["id"] for each in http.get("/flow-runs").json()["runs"]] == [run]
        assert http.get(f"/flow-runs/{run}/trace").json() == trace


def test_a_backup_takes_the_place_of_nothing_and_needs_no_hard_links(
    folder: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = folder / "copy"
    backup = partial(printed, "data", "backup", copy, "--data", folder)

    def refused(part: Path, target: Path, *, meanwhile: str | None = None) -> None:
        if meanwhile is not None:
            target.write_text(meanwhile)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    copy.write_text("precious")
    out, err = backup(code=Exit.USAGE)
    assert (out, "name another file" in err, copy.read_text()) == ("", True, "precious")
    copy.unlink()
    monkeypatch.setattr("os.link", partial(refused, meanwhile="made meanwhile"))
    assert "name another file" in backup(code=Exit.USAGE).err
    assert copy.read_text() == "made meanwhile"
    copy.unlink()
    monkeypatch.setattr("os.link", refused)
    backup()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    printed("data", "check", "--all", "--store", f"sqlite:///{copy}")
    err = printed("data", "backup", folder / "no" / "copy", "--data", folder, code=Exit.USAGE).err
    assert "No such file or directory" in err
    assert [file.name for file in folder.glob("*copy*")] == ["copy"]


def test_a_backup_that_is_stopped_leaves_no_part_of_a_copy(
    folder: Path, database: sqlite3.Connection
) -> None:
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute("BEGIN EXCLUSIVE")
    with started("data", "backup", folder / "copy", "--data", folder) as backup:
        eventually(lambda: [*folder.glob(".copy.*")])
        backup.send(signal.SIGTERM)
        database.execute("ROLLBACK")
        assert backup.wait() == Exit.TERMINATED
    assert [*folder.glob("*copy*")] == []


@pytest.mark.parametrize(
    "command",
    [
        ["data", "check"],
        ["migrate"],
        ["keys", "list", "acme/demo"],
        ["runs", "list"],
        ["runs", "delete", "status:completed", "--yes"],
    ],
)
def test_on_a_full_disk_a_command_has_the_room_of_the_reserve_and_without_it_says_so(
    folder: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    truncate = os.truncate
    # The file of the log's shared memory is made, as on a full disk, and cannot grow.
    with failing_disk(0, most_bytes=4096) as make_room, monkeypatch.context() as patch:

        def given_up(*reserve: Any) -> None:
            truncate(*reserve)
            make_room()

        patch.setattr(os, "truncate", given_up)
        printed(*command, "--data", folder)
        assert (folder / "runglass.db-reserve").stat().st_size == 0
    with failing_disk(0, most_bytes=4096):
        said = printed(*command, "--data", folder, code=Exit.FAILED)
    assert "the disk is full; make room on it" in said.out + said.err


def test_damage_is_named_and_ends_with_an_exit_code(
    folder: Path, printed: Printed, database: sqlite3.Connection
) -> None:
    database.execute("DELETE FROM event WHERE run_no = 1 AND seq = 2")
    check = partial(printed, "data", "check", "--all", "--data", folder, code=Exit.FAILED)
    found = json.loads(check("--json").out)
    assert not found["ok"]
    assert "should have events 1 to" in "\n".join(found["problems"])
    out = check().out
    assert "should have events 1 to" in out
    assert "problem" in out.splitlines()[-1]


@pytest.mark.parametrize("at", [0, 4096 * 3])
def test_a_damaged_file_is_found(folder: Path, printed: Printed, at: int) -> None:
    with (folder / "runglass.db").open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 4096)
    out = printed("data", "check", "--data", folder, "--json", code=Exit.FAILED).out
    assert json.loads(out)["problems"]
    assert (folder / "runglass.db-reserve").stat().st_size > 0, "that is for a full disk"


def test_every_row_of_an_unreadable_run_comes_out_as_it_is_and_none_of_others(
    folder: Path, tmp_path: Path, printed: Printed, database: sqlite3.Connection
) -> None:
    ids = [run_id for (run_id,) in database.execute("SELECT id FROM run ORDER BY no")]
    database.execute("UPDATE run SET summary = ? WHERE id = ?", (b"\xff\x00", ids[0]))
    file = tmp_path / "run.jsonl"
    err = printed("data", "export-raw", ids[0].upper(), file, "--data", folder).err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    assert f"wrote {len(lines):,} rows of run" in err
    (run,) = [line["row"] for line in lines if line["table"] == "run"]
    assert run["id"] == ids[0]
    assert base64.b64decode(run["summary"]["base64"]) == b"\xff\x00"
    for table in ("event", "step", "run_outcome"):
        stored = database.execute(f"SELECT * FROM {table} WHERE run_no = ?", (run["no"],)).fetchall()
        rows = [line["row"] for line in lines if line["table"] == table]
        assert stored
        assert [
            tuple(value["text"].encode() if isinstance(value, dict) else value for value in row.values())
            for row in rows
        ] == stored
    assert ids[1] not in file.read_text()


READ_ONLY = ["unshare", "-rm", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && "$@"']
"""Runs a command that sees a folder, the first word after these, as a disk that can only be read."""


def test_a_backup_on_a_disk_that_can_only_be_read_is_checked(
    folder: Path, printed: Printed, tmp_path: Path
) -> None:
    copy = tmp_path / "disk" / "copy.db"
    copy.parent.mkdir()
    printed("data", "backup", copy, "--data", folder)
    on_disk = [*READ_ONLY, str(copy.parent)]
    if shutil.which("unshare") is None or subprocess.run([*on_disk, "true"], check=False).returncode:
        pytest.skip("such a disk takes a right of its own to make")
    assert subprocess.run([*on_disk, "touch", str(copy)], check=False).returncode
    for command in (("check", "--all"), ("usage",)):
        words = [*START, "data", *command, "--store", f"sqlite:///{copy}"]
        subprocess.run([*on_disk, *words], env=environment(), check=True)


def test_a_file_of_somebody_whose_server_starts_meanwhile_is_not_called_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = folder / "runglass.db"
    with closing(sqlite3.connect(database)) as owner:
        # Who may write whatever its rights say, as root, sees it with these eyes.
        monkeypatch.setattr("os.access", lambda *_: False)

        def read() -> None:
            with opened(database):
                assert list(folder.glob("*-wal")) == [], "a reader makes none that the owner could not write"
                owner.execute("CREATE TABLE more (x)")

        with pytest.raises(StoreError, match="was changed while it was read; try again"):
            read()
        with opened(database) as beside:
            assert beside.execute("SELECT count(*) FROM more").fetchone() == (0,)

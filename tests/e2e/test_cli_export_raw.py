"""`runglass data export-raw`: everything that is stored of a run, readable or not, in a file of its own."""

import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runglass.testing import running_server
from tests.contract.wire import ANYTHING, execute, http_for
from tests.e2e.conftest import Printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[str]:
    """Two runs, the first of which cannot be read."""
    with running_server(data=folder, capture="full") as server, http_for(server, server.key) as http:
        server.push(ANYTHING)
        found = [execute(http, "anything", parameters={"text": "é"}) for _ in range(2)]
    with closing(sqlite3.connect(folder / "runglass.db")) as database, database:
        database.execute("UPDATE run SET summary = ? WHERE id = ?", (b"\xff\x00", found[0]))
    return found


def test_every_row_of_the_run_comes_out_as_it_is_and_none_of_others(
    folder: Path, runs: list[str], tmp_path: Path, printed: Printed
) -> None:
    file = tmp_path / "run.jsonl"
    err = printed("data", "export-raw", runs[0].upper(), file, "--data", folder).err
    assert file.stat().st_mode & 0o777 == 0o600
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    assert f"wrote {len(lines)} rows" in err
    (run,) = [line["row"] for line in lines if line["table"] == "run"]
    assert run["id"] == runs[0]
    assert base64.b64decode(run["summary"]["base64"]) == b"\xff\x00"
    with closing(sqlite3.connect(folder / "runglass.db")) as database:
        for table in ("event", "step", "run_outcome"):
            stored = database.execute(f"SELECT * FROM {table} WHERE run_no = ?", (run["no"],)).fetchall()
            rows = [line["row"] for line in lines if line["table"] == table]
            assert stored
            assert [
                tuple(value["text"].encode() if isinstance(value, dict) else value for value in row.values())
                for row in rows
            ] == stored
    assert runs[1] not in file.read_text()

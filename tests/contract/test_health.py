"""`/health`: what stops the server is 503, what to look at is `degraded`, each with its reason."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runglass.engine.run.lease import Lease
from runglass.testing import RunningServer, running_server
from tests.contract.test_disk_faults import until_health
from tests.contract.wire import ENDLESS, start
from tests.unit.engine.test_unreadable import UPDATES
from tests.waiting import eventually


def fail(*_: object) -> None:
    raise ZeroDivisionError("a fault of the server")


def test_a_lease_keeper_that_fails_is_503_until_it_is_well_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running_server(lease_s=0.3) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Lease, "hold", fail)
            sick = until_health(server.address, 503)
            assert sick["reasons"] == ["the lease keeper has failed and is restarted"]
        well = until_health(server.address, 200)
        assert well["status"] == "ok"
    assert [record.exc_info is not None for record in caplog.records if "lease keeper" in record.message]


def test_failing_housekeeping_degrades_health_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runglass.engine.maintenance.maintenance.Maintenance.tidy", fail)
    with running_server() as server:
        found = until_degraded(server)
        assert found["reasons"] == ["housekeeping has failed and is restarted"]


def test_runs_that_are_set_aside_are_counted(tmp_path: Path) -> None:
    with running_server(data=tmp_path) as server:
        server.push(ENDLESS)
        run = start(server, "endless")
    with closing(sqlite3.connect(tmp_path / "runglass.db")) as database, database:
        database.execute(UPDATES["summary"], (b"garbage", run))
    with running_server(data=tmp_path) as server:
        found = until_degraded(server)
    assert found["setAside"] == 1
    assert found["reasons"] == ["unreadable, quarantined runs: 1; the log names them"]


def until_degraded(server: RunningServer) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        told = until_health(server.address, 200)
        return told if told["status"] == "degraded" else None

    return eventually(found)

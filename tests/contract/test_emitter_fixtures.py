"""What libraries have sent once, taken in again: the runs tell what the model server's ledger says."""

import pytest

from runglass.testing import ORG, PROJECT, RunningServer
from tests.emitters import fixtures
from tests.emitters.capture import FLOW, flow_of, send
from tests.emitters.comparison import compare, shortfalls
from tests.emitters.readback import Api
from tests.emitters.table import ROWS

KNOWN = shortfalls()


def test_every_row_and_every_shortfall_has_fixtures() -> None:
    assert fixtures.names() == sorted(row.name for row in ROWS)
    cases = {(row, case.name) for row in fixtures.names() for case in fixtures.read(row).cases}
    assert set(KNOWN) <= cases


@pytest.mark.parametrize("row", fixtures.names())
def test_the_totals_of_the_runs_are_those_of_the_ledger(server: RunningServer, row: str) -> None:
    """Each case has a flow of its own. What a row is known to lack is in `tests/emitters/shortfalls.toml`."""
    key, api = server.make_key(ORG, PROJECT, "record"), Api(server.address, server.key)
    wrong: list[str] = []
    for case in fixtures.read(row).cases:
        flow = flow_of(row, case.name)
        headers = {"Authorization": f"Bearer {key}", FLOW: flow}
        refused = []
        for export in case.exports:
            status, _, body = send(export, server.address, headers)
            assert status == 200, f"{flow}: {export.path}"
            refused += [f"{export.path}: {body!r}"] if body else []
        found = compare(case.name, case.calls, refused, api.told(flow), KNOWN.get((row, case.name)))
        wrong += [f"{case.name}: {each}" for each in found]
    assert not wrong, "\n".join(wrong)

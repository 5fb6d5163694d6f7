"""The page of a run whose rows take long to come: its beginning and its end first."""

import re
from collections.abc import Sequence

import pytest
from playwright.sync_api import Route, expect

from runglass.server.services import outlines
from runglass.testing import RunningServer
from tests.browser.run_page import labels, open_run, panel, selected
from tests.browser.visitor import Visitor
from tests.contract.wire import execute, http_for

ITERATIONS = 1500
LOOP = f"""
slug: lengthy
steps:
  - id: each
    type: loop
    over: list(range({ITERATIONS}))
    steps: [{{id: work, type: passthrough}}]
"""
ALL_ROWS = re.compile(r"/trace/outline\?limit=\d+$")


@pytest.fixture
def lengthy(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that counts as a long one, and has no outline yet."""
    monkeypatch.setattr(outlines, "LONG_RUN_EVENTS", ITERATIONS)
    monkeypatch.setattr(outlines, "ENDS_BYTES", 4096)
    server.push(LOOP)
    with http_for(server, server.key) as http:
        return execute(http, "lengthy")


def test_the_beginning_and_the_end_are_there_before_all_rows(lengthy: str, visitor: Visitor) -> None:
    held: list[Route] = []
    visitor.page.route(ALL_ROWS, lambda route: held.append(route))
    page = open_run(visitor, lengthy)
    note = page.get_by_role("status").filter(has_text="The beginning and the end of the run")
    expect(note).to_be_visible()
    assert 0 < _iterations(labels(page)) < ITERATIONS
    visitor.keys("e")
    expect(page.get_by_text("None in the rows that have come so far")).to_be_visible()
    assert len(held) == 1
    held[0].continue_()
    expect(note).to_be_hidden()
    assert _iterations(labels(page)) == ITERATIONS


def test_a_link_into_the_middle_leads_there_once_the_rows_have_come(lengthy: str, visitor: Visitor) -> None:
    page = open_run(visitor, lengthy, step="each/work", iteration=ITERATIONS // 2)
    expect(selected(page)).to_have_attribute("aria-label", re.compile("^work.*step, completed$"))
    expect(panel(page).get_by_role("heading", level=2)).to_contain_text(f"work [{ITERATIONS // 2}]")


def _iterations(shown: Sequence[str]) -> int:
    found = re.search(r"each ([\d,]+) iterations", shown[0])
    assert found is not None, shown[0]
    return int(found[1].replace(",", ""))

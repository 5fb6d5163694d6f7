"""The page of a run whose rows take long to come: its beginning and its end first."""

import re

import pytest
from playwright.sync_api import expect

from runglass.runtime.runtime import FixedLimits
from runglass.testing import RunningServer
from tests.browser.run_page import lines, open_run, panel, selected, toast
from tests.browser.visitor import Visitor, held
from tests.contract.wire import execute, http_for
from tests.servers import server_with

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


server = server_with(LOOP, limits=FixedLimits(long_run_events=ITERATIONS, ends_bytes=4096))


@pytest.fixture
def lengthy(server: RunningServer) -> str:
    """A run that counts as a long one, and has no outline yet."""
    with http_for(server, server.key) as http:
        return execute(http, "lengthy")


def test_the_beginning_and_the_end_are_there_before_all_rows(lengthy: str, visitor: Visitor) -> None:
    loop = visitor.page.get_by_role("treeitem", name="each")
    note = visitor.page.get_by_role("status").filter(has_text="The beginning and end of the run")
    with held(visitor.page, ALL_ROWS):
        page = open_run(visitor, lengthy)
        expect(note).to_be_visible()
        expect(loop).to_have_accessible_name(re.compile(r"^each \d{1,3}\siterations"))
        visitor.keys("e")
        expect(toast(page)).to_have_text("None in the rows loaded so far")
    expect(note).to_be_hidden()
    expect(loop).to_have_accessible_name(re.compile(rf"^each {ITERATIONS:,}\siterations"))


def test_a_link_into_the_middle_leads_there_once_the_rows_have_come(lengthy: str, visitor: Visitor) -> None:
    page = open_run(visitor, lengthy, step="each/work", iteration=ITERATIONS // 2)
    expect(selected(page)).to_have_attribute("aria-label", re.compile("^work.*step, completed$"))
    expect(panel(page).get_by_role("heading", level=2)).to_contain_text(f"work [{ITERATIONS // 2}]")
    expect(selected(page)).to_be_in_viewport()
    assert lines(page).count() < 80

"""A run is shown before all of it is there: of megabytes what is asked for, of many rows both ends."""

import json
import re
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Response, expect

from runglass.runtime.runtime import FixedLimits
from tests.browser.run_page import lines, open_run, panel, selected, toast
from tests.browser.visitor import Visitor, held
from tests.contract.wire import execute
from tests.servers import server_with

BIG = """
slug: big
steps:
  - {id: make, type: code, code: 'return {"text": "é" * 1_000_000}'}
"""
FIRST_BYTES = 65_536
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


# One that keeps large content whole.
server = server_with(
    *(BIG, LOOP),
    limits=FixedLimits(long_run_events=ITERATIONS, ends_bytes=4096),
    capture="full",
    snapshot_limit_bytes=10_000_000,
)


@pytest.fixture(scope="module")
def run(http: httpx2.Client) -> str:
    return execute(http, "big")


def test_large_content_comes_by_ranges_and_as_a_file(run: str, visitor: Visitor) -> None:
    sizes: list[int] = []

    def count(response: Response) -> None:
        if "/steps/" in response.url:
            sizes.append(int(response.headers["content-length"]))

    visitor.page.on("response", count)
    page = open_run(visitor, run, step="make", tab="output")
    content = panel(page).get_by_role("tabpanel")
    expect(content).to_contain_text("the first 66 kB of 2.0 MB")
    assert len(content.locator("pre").inner_text()) == (FIRST_BYTES + len('{"text":"')) // 2
    assert max(sizes) <= FIRST_BYTES
    page.get_by_role("button", name="Show 262 kB more").click()
    expect(content).to_contain_text("the first 328 kB of 2.0 MB")
    assert re.fullmatch('{"text":"é+', content.locator("pre").inner_text())
    assert max(sizes) <= 4 * FIRST_BYTES
    with page.expect_download() as found:
        page.get_by_role("button", name="Download").click()
    assert found.value.suggested_filename == "make-output.json"
    assert json.loads(Path(found.value.path()).read_text("utf-8")) == {"text": "é" * 1_000_000}


def test_content_that_changed_meanwhile_is_begun_anew(run: str, visitor: Visitor) -> None:
    page = open_run(visitor, run, step="make", tab="output")
    content = panel(page).get_by_role("tabpanel")
    expect(content).to_contain_text("the first 66 kB")
    page.route(
        "**/payload?*",
        lambda route: route.continue_(headers={**route.request.headers, "if-range": '"other"'}),
        times=1,
    )
    page.get_by_role("button", name="Show 262 kB more").click()
    expect(content).to_contain_text("the first 262 kB of 2.0 MB")
    assert content.locator("pre").inner_text().startswith('{"text":"é')


@pytest.fixture
def lengthy(http: httpx2.Client) -> str:
    """A run that counts as a long one, and has no outline yet."""
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

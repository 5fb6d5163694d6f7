"""Of an attempt that keeps megabytes as much is read as somebody asks for, and no more."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Response, expect

from runglass.testing import RunningServer
from tests.browser.run_page import open_run, panel
from tests.browser.visitor import Visitor, visiting
from tests.contract.wire import execute, http_for
from tests.servers import server_with

BIG = """
slug: big
steps:
  - {id: make, type: code, code: 'return {"text": "é" * 1_000_000}'}
"""
FIRST_BYTES = 65_536


# One that keeps large content whole.
server = server_with(BIG, capture="full", snapshot_limit_bytes=10_000_000)


@pytest.fixture
def visitor(browser: Browser, server: RunningServer) -> Iterator[Visitor]:
    with visiting(browser, server.address, server.key, accept_downloads=True) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def run(server: RunningServer) -> str:
    with http_for(server, server.key) as http:
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

"""The page of one run: why it failed, its tree, and all that is kept of what is selected."""

import re

import httpx2
import pytest
from playwright.sync_api import expect

from runglass.testing import RunningServer
from tests.browser.conftest import Runs
from tests.browser.run_page import labels, lines, open_run, panel, selected
from tests.browser.visitor import Visitor
from tests.contract.wire import GRID, execute


@pytest.fixture(scope="module")
def grid(server: RunningServer, http: httpx2.Client) -> str:
    """A run of nested loops in which one iteration took two attempts."""
    server.push(GRID)
    return execute(http, "grid", parameters={"rows": [[0, 1], [10, 11, 12]]})


def test_a_run_says_what_it_is_and_what_it_did(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.good)
    expect(page).to_have_title(re.compile("^completed: add-up-orders v1"))
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("add-up-orders v1"))
    visitor.settle()
    expect(page.get_by_role("treeitem", name="read_lines")).to_have_accessible_name(
        re.compile("^read_lines .* code step, completed$")
    )
    assert labels(page) == [
        "read_lines, code step, completed",
        "each_order 3 iterations, loop, completed",
        *(
            line
            for index in range(3)
            for line in (
                f"[{index}], iteration, completed",
                "describe echo, llm step, completed",
                "price, code step, completed",
            )
        ),
        "total, code step, completed",
    ]


def test_why_a_run_failed_comes_first_and_leads_there(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.failed)
    why = page.locator(".why")
    expect(why).to_contain_text("price [1] attempt 2 of 2 — CODE_ERROR: ValueError: could not convert string")
    why.get_by_role("button", name="Go there").click()
    expect(selected(page)).to_have_attribute("aria-label", re.compile("^attempt 2 .*attempt, failed$"))
    expect(panel(page).get_by_role("heading", level=2)).to_have_text("price [1] attempt 2 of 2")
    expect(page).to_have_url(re.compile(r"\?step=each_order/price&iteration=1&attempt=2$"))


def test_an_attempt_is_compared_with_the_one_before_it_and_with_other_iterations(
    grid: str, visitor: Visitor
) -> None:
    page = open_run(visitor, grid, step="rows/columns/cell", iteration="1,1", attempt=2, tab="compare")
    content = panel(page).get_by_role("tabpanel")
    choice = content.get_by_role("combobox", name="Compare with")
    expect(choice.locator("option:checked")).to_have_text("attempt 1: failed, retried")
    expect(content.get_by_role("row").filter(has_text="status")).to_contain_text("failedcompleted")
    choice.select_option("1,0")
    expect(content.get_by_role("row").filter(has_text="output cell")).to_contain_text("1011")
    expect(page).to_have_url(re.compile("tab=compare&with=1,0$"))
    content.get_by_label("Iteration number").fill("0, 1")
    visitor.keys("Enter")
    expect(choice.locator("option:checked")).to_have_text("[0, 1]: completed")
    expect(content.get_by_role("row").filter(has_text="output cell")).to_contain_text("111")
    content.get_by_role("button", name="Open", exact=True).click()
    expect(panel(page).get_by_role("heading", level=2)).to_have_text("cell [0, 1]")


def test_a_run_that_waits_for_tools_says_so_and_shows_what_was_asked(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.waiting, step="answer", tab="chat")
    expect(page.locator(".why")).to_contain_text("answer called tools")
    expect(panel(page).locator(".tool-call")).to_contain_text("weather")


def test_an_attempt_in_nested_iterations_has_an_address(grid: str, visitor: Visitor) -> None:
    page = open_run(visitor, grid, step="rows/columns/cell", iteration="1,1", attempt=1, tab="error")
    expect(panel(page).get_by_role("heading", level=2)).to_have_text("cell [1, 1] attempt 1 of 2")
    expect(panel(page).get_by_role("tabpanel")).to_contain_text("once")
    expect(selected(page)).to_have_attribute("aria-label", re.compile("^attempt 1 .*retried"))
    panel(page).get_by_role("button", name="Next").click()
    expect(panel(page).get_by_role("heading", level=2)).to_have_text("cell [1, 1] attempt 2 of 2")
    expect(page).to_have_url(re.compile("iteration=1,1&attempt=2"))


def test_a_step_that_was_retried_leads_on_to_the_next_iteration(grid: str, visitor: Visitor) -> None:
    page = open_run(visitor, grid, step="rows/columns/cell", iteration="1,0")
    heading = panel(page).get_by_role("heading", level=2)
    for button, title in [
        ("Next", "cell [1, 1] attempt 2 of 2"),
        ("Next", "cell [1, 2]"),
        ("Previous", "cell [1, 1] attempt 2 of 2"),
        ("Previous", "cell [1, 0]"),
    ]:
        panel(page).get_by_role("button", name=button).click()
        expect(heading).to_have_text(title)


def test_an_address_that_was_cut_is_that_of_no_run(visitor: Visitor) -> None:
    visitor.expect(404)
    page = visitor.open("/runs/%E0%A4")
    expect(page.get_by_role("heading", name="Run not found")).to_be_visible()


def test_an_address_with_parts_too_many_is_that_of_no_page(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.good)
    # The server has no such page either, which only links within the viewer could lead to.
    for path in (f"/runs/{runs.good}/anything", f"/compare/{runs.good}/{runs.failed}/anything"):
        page.evaluate(
            "path => { history.pushState(null, '', path); dispatchEvent(new Event('popstate')); }", path
        )
        expect(page.get_by_role("heading", name="Page not found")).to_be_visible()


def test_a_filter_shows_what_matches_and_all_around_it(grid: str, visitor: Visitor) -> None:
    page = open_run(visitor, grid)
    visitor.keys("/")
    page.keyboard.type("[1]")
    expect(page.get_by_role("toolbar").get_by_role("status")).to_contain_text("found")
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.get_by_role("heading", name="Nothing matches the filter")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(lines(page).first).to_be_visible()


def test_what_differs_between_two_runs_is_told_attempt_by_attempt_and_leads_there(
    runs: Runs, visitor: Visitor
) -> None:
    page = visitor.open(f"/compare/{runs.good}/{runs.failed}")
    rows = page.get_by_role("list", name="Attempts").locator("> li")
    expect(rows.first.get_by_role("table")).to_contain_text('"bread 3.20"')
    expect(rows.first.get_by_role("table")).to_contain_text('"bread three"')
    assert rows.filter(has_text=re.compile("^.*only in A")).count() > 0
    differing = rows.count()
    page.get_by_role("button", name="Show unchanged").click()
    expect(rows).not_to_have_count(differing)
    page.get_by_role("link", name="Open in B").first.click()
    expect(selected(page)).to_have_attribute("aria-label", re.compile("^read_lines"))
    expect(page).to_have_url(re.compile(f"/runs/{runs.failed}"))

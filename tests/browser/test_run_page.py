"""The page of one run: why it failed, its tree, and all that is kept of what is selected."""

import re

import pytest
from playwright.sync_api import expect

from runglass.testing import RunningServer
from tests.browser.demo_runs import Runs
from tests.browser.run_page import labels, lines, open_run, panel, selected, tab
from tests.browser.visitor import HEIGHT, NARROW, Visitor
from tests.contract.wire import GRID, execute, http_for


@pytest.fixture(scope="module")
def grid(server: RunningServer) -> str:
    """A run of nested loops in which one iteration took two attempts."""
    server.push(GRID)
    with http_for(server, server.key) as http:
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


def test_the_panel_has_each_part_of_an_attempt(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.failed, step="each_order/price", iteration=1, attempt=2)
    content = panel(page).get_by_role("tabpanel")
    expect(content).to_contain_text('run.step_trace("price", attempt=2, loop_index=1)')
    expect(content).to_contain_text(re.compile(r"waited\d+ ms before this attempt"))
    tab(page, "Input").click()
    expect(content.locator(".json")).to_have_text(re.compile(r'\{\s*text: ".*bread three"\s*\}$'))
    tab(page, "Output").click()
    expect(content).to_contain_text("No output")
    tab(page, "Error").click()
    expect(content).to_contain_text("could not convert string to float: 'three'")
    tab(page, "Raw").click()
    expect(content).to_contain_text('"stepId": "price"')
    expect(page).to_have_url(re.compile("&tab=raw$"))
    page.reload()
    expect(panel(page).get_by_role("tabpanel", name="Raw")).to_contain_text('"attempt": 2')


def test_an_attempt_is_compared_with_the_one_before_it_and_with_other_iterations(
    grid: str, runs: Runs, visitor: Visitor
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


def test_a_step_that_went_well_when_it_was_tried_again_is_compared_with_what_failed_before(
    grid: str, visitor: Visitor
) -> None:
    page = open_run(visitor, grid, step="rows/columns/cell", iteration="1,1", tab="compare")
    choice = panel(page).get_by_role("combobox", name="Compare with")
    expect(choice.locator("option:checked")).to_have_text("attempt 1: failed, retried")


def test_what_failed_is_compared_with_what_went_well(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.failed, step="each_order/price", iteration=1, attempt=2, tab="compare")
    choice = panel(page).get_by_role("combobox", name="Compare with")
    expect(choice.locator("option:checked")).to_have_text("[0]: completed")
    expect(panel(page).get_by_role("tabpanel")).to_contain_text("CODE_ERROR")


def test_the_way_beside_leads_to_the_same_step_of_the_next_iteration(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.nested, step="each_row/each_cell/look", iteration="31,47")
    panel(page).get_by_role("button", name="Next").click()
    expect(panel(page).get_by_role("heading", level=2)).to_have_text("look [31, 48]")


def test_an_llm_step_reads_as_the_conversation_that_it_was(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.good, step="each_order/describe", iteration=0, tab="chat")
    turns = panel(page).locator(".turn")
    expect(turns).to_have_count(3)
    expect(turns.nth(0)).to_contain_text("Describe the order that you are given")
    expect(turns.nth(1)).to_contain_text("tea 4.50")
    expect(turns.nth(2)).to_contain_text("tea 4.50")
    assert [turn.inner_text().split("\n")[0].lower() for turn in turns.all()] == [
        "system",
        "user",
        "assistant",
    ]


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


def test_an_address_in_a_run_of_thousands_of_iterations_is_found(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.nested, step="each_row/each_cell/look", iteration="31,47", tab="input")
    expect(panel(page).get_by_role("heading", level=2)).to_have_text("look [31, 47]")
    expect(selected(page)).to_be_in_viewport()
    assert lines(page).count() < 80


def test_a_filter_shows_what_matches_and_all_around_it(grid: str, visitor: Visitor) -> None:
    page = open_run(visitor, grid)
    visitor.keys("/")
    page.keyboard.type("[1]")
    expect(page.get_by_role("toolbar").get_by_role("status")).to_contain_text("found")
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.get_by_role("heading", name="Nothing matches the filter")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(lines(page).first).to_be_visible()


def test_no_part_of_the_toolbar_is_cut_off_on_a_narrow_screen(grid: str, visitor: Visitor) -> None:
    page = open_run(visitor, grid)
    page.set_viewport_size({"width": NARROW, "height": HEIGHT})
    visitor.settle()
    parts = page.get_by_role("toolbar").locator("> *:visible")
    assert (
        parts.evaluate_all("all => all.map((each) => each.getBoundingClientRect().right <= innerWidth)")
        == [True] * parts.count()
    )


def test_a_chosen_theme_is_there_before_the_page_is(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.evaluate("localStorage.setItem('runglass.theme', 'dark')")
    page.add_init_script("addEventListener('DOMContentLoaded', () => { window.first = theme(); })")
    page.add_init_script("window.theme = () => document.documentElement.dataset.theme")
    page.reload()
    assert page.evaluate("window.first") == "dark"


def test_the_frame_that_shows_a_letter_shows_what_it_finds(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.good)
    found = page.get_by_role("searchbox").evaluate("""async (field) => {
        field.value = "total";
        field.dispatchEvent(new Event("input", { bubbles: true }));
        await new Promise(requestAnimationFrame);
        const labels = document.querySelectorAll(".line:not([hidden]) .label");
        return [...labels].map((label) => label.textContent.trim());
    }""")
    assert found == ["total"]


def test_a_run_that_is_not_there_leads_back_to_the_runs(visitor: Visitor) -> None:
    visitor.expect(404)
    page = visitor.open("/runs/01900000-0000-7000-8000-000000000000?step=a")
    expect(page.get_by_role("heading", name="Run not found")).to_be_visible()
    page.get_by_role("link", name="All runs").click()
    expect(page.locator("tbody tr").first).to_be_visible()


def test_keys_in_quick_succession_all_count(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.good)
    visitor.keys(*"jjjjjjjjk")
    expect(page).to_have_url(re.compile(r"step=each_order/describe&iteration=1$"))
    expect(selected(page)).to_have_attribute("aria-posinset", "7")

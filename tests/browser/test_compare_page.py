"""Two runs beside each other: chosen in the list, and where they part."""

import re

from playwright.sync_api import expect

from tests.browser.demo_runs import Runs
from tests.browser.visitor import Visitor


def test_two_runs_of_the_list_are_compared(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open("/?q=flow:add-up-orders")
    expect(page.locator("tbody tr")).to_have_count(2)
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Compare runs").click()
    expect(page.locator(".first")).to_contain_text(
        re.compile(r"first difference\s*read_lines: input differs at message")
    )
    expect(page).to_have_url(re.compile("/compare/" + "/".join(sorted([runs.good, runs.failed]))))


def test_what_differs_is_told_attempt_by_attempt(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open(f"/compare/{runs.good}/{runs.failed}")
    rows = page.get_by_role("list", name="Attempts").locator("> li")
    expect(rows.first.get_by_role("table")).to_contain_text('"bread 3.20"')
    expect(rows.first.get_by_role("table")).to_contain_text('"bread three"')
    assert rows.filter(has_text=re.compile("^.*only in A")).count() > 0
    differing = rows.count()
    page.get_by_role("button", name="Show unchanged").click()
    expect(rows).not_to_have_count(differing)
    expect(page).to_have_url(re.compile("all=true"))


def test_a_difference_leads_to_its_attempt(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open(f"/compare/{runs.good}/{runs.failed}")
    page.get_by_role("link", name="Open in B").first.click()
    expect(page.get_by_role("treeitem", selected=True)).to_have_attribute(
        "aria-label", re.compile("^read_lines")
    )
    expect(page).to_have_url(re.compile(f"/runs/{runs.failed}"))


def test_the_runs_change_sides(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open(f"/compare/{runs.good}/{runs.failed}")
    page.get_by_role("button", name="Swap").click()
    expect(page).to_have_url(re.compile(f"/compare/{runs.failed}/{runs.good}"))
    expect(page.locator(".first")).to_contain_text(re.compile("three.*3.20"))


def test_a_run_is_the_same_as_itself(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open(f"/compare/{runs.good}/{runs.good}")
    expect(page.locator(".first")).to_contain_text("no difference")


def test_a_run_that_is_not_there_is_told(runs: Runs, visitor: Visitor) -> None:
    visitor.expect(404)
    page = visitor.open(f"/compare/{runs.good}/01900000-0000-7000-8000-000000000000")
    expect(page.get_by_role("heading", name="The runs cannot be compared")).to_be_visible()

"""Whoever has no mouse gets in, around and out again; and keys that are typed into a field stay there."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import Runs
from tests.browser.run_page import lines, open_run, panel, selected
from tests.browser.visitor import Visitor


def test_two_runs_are_chosen_and_compared(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open("/?q=flow:add-up-orders")
    expect(page.locator("tbody tr")).to_have_count(2)
    visitor.keys("j", "x", "j", "x", "c")
    expect(page.locator(".first")).to_contain_text("first difference")
    visitor.keys("j", "j", "Enter")
    expect(page.get_by_role("button", expanded=True)).to_have_count(2)
    visitor.keys("u")
    expect(page.locator("tbody tr")).to_have_count(len(runs))


def test_the_tree_is_walked_folded_and_unfolded(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.good)
    expect(lines(page)).to_have_count(12)
    visitor.keys("j", "j")
    expect(selected(page)).to_have_attribute("aria-label", re.compile("^each_order"))
    visitor.keys("ArrowLeft")
    expect(selected(page)).to_have_attribute("aria-expanded", "false")
    expect(lines(page)).to_have_count(3)
    visitor.keys("ArrowRight", "ArrowRight", "ArrowRight")
    expect(selected(page)).to_have_attribute("aria-label", re.compile(r"^describe"))
    expect(lines(page)).to_have_count(12)
    visitor.keys("Enter")
    expect(panel(page)).to_be_visible()
    visitor.keys("Escape", "End")
    expect(panel(page)).to_have_count(0)
    expect(selected(page)).to_have_attribute("aria-label", re.compile("^total"))


def test_the_keys_of_a_page_are_told_and_a_step_is_found_by_its_name(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.nested)
    visitor.keys("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_contain_text("next error")
    visitor.keys("Escape", "g")
    expect(page.get_by_role("combobox", name="Command")).to_be_focused()
    page.keyboard.type("look 31,47")
    expect(page.get_by_role("dialog").get_by_role("option").first).to_contain_text("look [31, 47]")
    visitor.keys("Enter")
    expect(panel(page).get_by_role("heading", level=2)).to_have_text("look [31, 47]")


def test_the_palette_has_the_key_that_follows_on_the_one_that_opens_it(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.failed)
    # The browser hands out no further key until what the first one has set off is done.
    focused = page.evaluate("""async () => {
        dispatchEvent(new KeyboardEvent("keydown", { key: "k", ctrlKey: true }));
        await null;
        return document.activeElement.ariaLabel;
    }""")
    assert focused == "Command"


def test_what_is_typed_into_a_field_is_text(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.failed)
    visitor.keys("/")
    page.keyboard.type("eu.?")
    expect(page.get_by_role("searchbox")).to_have_value("eu.?")
    assert page.url.endswith(f"/runs/{runs.failed}")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_every_control_of_a_run_is_reached_with_tab_and_shows_it(runs: Runs, visitor: Visitor) -> None:
    page = open_run(visitor, runs.failed, step="each_order/price", iteration=1, attempt=2)
    expect(panel(page).get_by_role("tab")).to_have_count(6)
    reached = []
    for _ in range(60):
        visitor.keys("Tab")
        reached.append(
            page.evaluate("document.activeElement.textContent || document.activeElement.ariaLabel")
        )
        if page.evaluate("document.activeElement === document.body"):
            break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", reached[-1]
    for name in ("Compare", "Copy link", "Sign out", "only failed", "Filter steps", "✕", "overview"):
        assert any(name in str(each) for each in reached), name


def test_what_a_flow_did_last_night_is_answered_with_few_keys(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open("/")
    expect(page.locator("tbody tr")).to_have_count(len(runs))
    # Which run, and where in it?
    visitor.keys("Control+k")
    expect(page.get_by_role("combobox", name="Command")).to_be_focused()
    visitor.keys(*"fail")
    expect(page.get_by_role("option", selected=True)).to_contain_text("of the last 24 hours")
    visitor.keys("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    visitor.keys("j")
    expect(page.locator(f'a[data-run="{runs.failed}"]')).to_be_focused()
    visitor.keys("Enter")
    expect(page.locator(".why")).to_contain_text("price [1] attempt 2 of 2")
    expect(lines(page).first).to_be_visible()
    visitor.keys("e")
    expect(selected(page)).to_have_attribute("aria-label", re.compile("^attempt 2 .*failed$"))
    content = panel(page).get_by_role("tabpanel")
    # What went in, what came out, why, and the same in Python.
    for key, told in (
        ("2", '"bread three"'),
        ("3", "No output"),
        ("4", "could not convert string to float: 'three'"),
        ("1", 'run.step_trace("price", attempt=2, loop_index=1)'),
    ):
        visitor.keys(key)
        expect(content).to_contain_text(told)
    # What did it cost, and how does it differ from a good one?
    visitor.keys("$")
    expect(panel(page).get_by_role("heading", level=2)).to_have_text(re.compile("describe"))
    expect(content).to_contain_text(re.compile(r"cost\$0\.000003"))
    visitor.keys("c")
    expect(page.locator(".first")).to_contain_text("read_lines: input differs at message")

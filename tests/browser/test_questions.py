"""The questions of somebody whose flow did something odd last night, each answered by the keyboard alone."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect

from runglass.testing import RunningServer
from tests.browser.demo_runs import Runs
from tests.browser.run_page import lines, panel, selected
from tests.browser.visitor import visiting

MOST_KEYS = 7


class Keyboard:
    """Counts the keys that each answer takes, and the time until it is seen."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    @contextmanager
    def answering(self, question: str, *keys: str) -> Iterator[tuple[str, ...]]:
        """Hands out the keys to press; by the end of the block the answer must have been seen."""
        assert len(keys) <= MOST_KEYS, f"{question} takes {len(keys)} keys"
        begun_s = time.perf_counter()
        yield keys
        line = f"{question:36} {len(keys)} key(s)  {time.perf_counter() - begun_s:.2f} s  {' '.join(keys)}"
        self._request.node.user_properties.append(("answer", line))


def test_each_question_is_answered_with_few_keys(
    browser: Browser, server: RunningServer, runs: Runs, request: pytest.FixtureRequest
) -> None:
    keyboard = Keyboard(request)
    with visiting(browser, server.address, server.key) as visitor:
        page = visitor.open("/")
        expect(page.locator("tbody tr")).to_have_count(len(runs))
        with keyboard.answering("Which run?", "Control+k", *"fail", "Enter", "j") as keys:
            visitor.keys(keys[0])
            expect(page.get_by_role("combobox", name="Command")).to_be_focused()
            visitor.keys(*keys[1:5])
            expect(page.get_by_role("option", selected=True)).to_contain_text("of the last 24 hours")
            visitor.keys(keys[5])
            expect(page.locator("tbody tr")).to_have_count(1)
            visitor.keys(keys[6])
            expect(page.locator(f'a[data-run="{runs.failed}"]')).to_be_focused()
        with keyboard.answering("Where in it?", "Enter", "e") as keys:
            visitor.keys(keys[0])
            expect(page.locator(".why")).to_contain_text("price [1] attempt 2 of 2")
            expect(lines(page).first).to_be_visible()
            visitor.keys(keys[1])
            expect(selected(page)).to_have_attribute("aria-label", re.compile("^attempt 2 .*failed$"))
        content = panel(page).get_by_role("tabpanel")
        with keyboard.answering("What went in?", "2") as keys:
            visitor.keys(*keys)
            expect(content).to_contain_text('"bread three"')
        with keyboard.answering("What came out?", "3") as keys:
            visitor.keys(*keys)
            expect(content).to_contain_text("No output")
        with keyboard.answering("Why?", "4") as keys:
            visitor.keys(*keys)
            expect(content).to_contain_text("could not convert string to float: 'three'")
        with keyboard.answering("What now: the same in Python", "1") as keys:
            visitor.keys(*keys)
            expect(content).to_contain_text('run.step_trace("price", attempt=2, loop_index=1)')
        with keyboard.answering("What did it cost, and where?", "$") as keys:
            visitor.keys(*keys)
            expect(panel(page).get_by_role("heading", level=2)).to_have_text(re.compile("describe"))
            expect(content).to_contain_text(re.compile(r"cost\$0\.000003"))
        with keyboard.answering("How does it differ from a good one?", "c") as keys:
            visitor.keys(*keys)
            expect(page.locator(".first")).to_contain_text("read_lines: input differs at message")
        with keyboard.answering("What now: other runs", "u") as keys:
            visitor.keys(*keys)
            expect(page.locator("tbody tr")).to_have_count(len(runs))

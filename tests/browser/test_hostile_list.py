"""Hostile text in everything that a run says of itself in lists: it is shown as the text that it is."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from runglass.testing import RunningServer, running_server
from tests.browser.payloads import texts
from tests.browser.stored_runs import Log, store_runs
from tests.browser.visitor import Visitor

NAMES = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts()]
"""What JSON carries of the payloads: no half characters."""
START_MS = 1_790_000_000_000

READ_ON = """count => {
    const scroller = document.querySelector('.scroller');
    scroller.scrollTop = scroller.scrollHeight;
    return document.querySelectorAll('tbody tr').length >= count;
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server with a run for each payload, which has it in every field."""
    with running_server(log_level="error") as server:
        store_runs(server, [hostile(number, text) for number, text in enumerate(NAMES)])
        yield server


def hostile(number: int, text: str) -> Log:
    log = Log(f"01900000-0000-7000-8000-{number:012x}", start_ms=START_MS + 1000 * number)
    about: dict[str, Any] = {"sessionId": text, "startedBy": text, "traceParent": text, "traceState": text}
    log.start(text, triggerType=text, **about)
    log.add("flow_failed", after_ms=10, runId=log.run_id, stepId=text, error={"code": text, "message": text})
    return log


def test_every_run_of_the_list_is_shown_whatever_is_in_it(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.wait_for_function(READ_ON, arg=len(NAMES), polling=50)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(len(NAMES))
    shown = page.locator("tbody td.c-flow bdi").all_text_contents()
    assert shown[::-1] == NAMES

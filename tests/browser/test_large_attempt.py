"""An attempt that keeps megabytes is read when somebody asks for it, and not before."""

import json

from playwright.sync_api import Route, expect

from tests.browser.demo_runs import Runs
from tests.browser.visitor import Visitor

BODY = json.dumps(
    {"stepId": "read_lines", "attempt": 1, "status": "completed", "outputContext": {"word": "w" * 5_000_000}}
)


def test_its_size_is_told_and_it_is_read_when_it_is_asked_for(runs: Runs, visitor: Visitor) -> None:
    def answer(route: Route) -> None:
        route.fulfill(
            body=BODY, headers={"Content-Type": "application/json", "Content-Length": str(len(BODY))}
        )

    visitor.page.route("**/steps/read_lines/trace*", answer)
    page = visitor.open(f"/runs/{runs.good}?step=read_lines&tab=output")
    expect(page.get_by_text("5.0 MB are kept of this attempt.")).to_be_visible()
    expect(page.get_by_text("word")).to_have_count(0)
    page.get_by_role("button", name="Load them").click()
    expect(page.get_by_role("button", name="all 5,000,000 characters")).to_be_visible()

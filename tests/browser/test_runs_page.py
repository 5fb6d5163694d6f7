"""The list of runs: what it shows, what a query finds, and how it lives."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Locator, Route, expect

from runglass.testing import RunningServer
from tests.browser.conftest import Runs
from tests.browser.visitor import Visitor, unanswered
from tests.contract.wire import ENDLESS, cancel, start

pytestmark = pytest.mark.usefixtures("runs")
BRIEF = "slug: brief\nsteps: [{id: only, type: passthrough}]\n"


def row(visitor: Visitor, run_id: str) -> Locator:
    return visitor.page.locator("tr", has=visitor.page.locator(f'a[data-run="{run_id}"]'))


def query_field(visitor: Visitor) -> Locator:
    return visitor.page.get_by_role("combobox", name="Query")


def shown(visitor: Visitor) -> list[str | None]:
    return [link.get_attribute("data-run") for link in visitor.page.locator("a[data-run]").all()]


def test_each_run_has_a_row_that_says_what_came_of_it(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open("/")
    expect(page.locator("tbody tr")).to_have_count(len(runs))
    for run_id, status in [
        (runs.good, "completed"),
        (runs.failed, "failed"),
        (runs.retried, "completed after a retry"),
        (runs.cancelled, "cancelled"),
        (runs.waiting, "waiting"),
    ]:
        expect(row(visitor, run_id).get_by_role("img", name=status, exact=True)).to_be_visible()
    expect(row(visitor, runs.failed)).to_contain_text("price: CODE_ERROR")
    expect(row(visitor, runs.good).locator(".c-cost")).to_have_text(re.compile(r"^\$0\.0000\d"))


def test_a_query_is_in_the_address_and_back_leads_to_where_it_was(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open("/")
    expect(page.locator("tbody tr")).to_have_count(len(runs))
    query_field(visitor).fill("flow:add-up-orders -status:failed")
    visitor.keys("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    assert shown(visitor) == [runs.good]
    assert page.url.endswith("/?q=flow:add-up-orders+-status:failed")
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(query_field(visitor)).to_have_value("flow:add-up-orders -status:failed")
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(len(runs))
    expect(query_field(visitor)).to_have_value("")


def test_a_query_that_cannot_be_read_is_told_beside_the_field(visitor: Visitor) -> None:
    visitor.expect(422)
    page = visitor.open("/")
    expect(page.locator(".histogram svg")).to_be_visible()
    query_field(visitor).fill("statsu:failed")
    visitor.keys("Enter")
    alert = page.get_by_role("alert").filter(has_text=re.compile("statsu"))
    expect(alert).to_contain_text("status")
    expect(query_field(visitor)).to_have_attribute("aria-invalid", "true")
    # What the query before it found would pass for what this one finds.
    expect(page.locator(".histogram svg")).to_have_count(0)
    expect(page.locator("tbody tr")).to_have_count(0)
    query_field(visitor).fill("status:failed")
    visitor.keys("Enter")
    expect(alert).to_have_count(0)
    expect(page.locator("tbody tr")).to_have_count(1)


def test_a_query_that_is_typed_is_one_entry_of_the_history(runs: Runs, visitor: Visitor) -> None:
    page = visitor.open("/")
    expect(page.locator("tbody tr")).to_have_count(len(runs))
    before = page.evaluate("history.length")
    # A pause of who types is as long as the test says from now on, and not as long as the machine takes.
    page.clock.install()
    page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))
    query_field(visitor).press_sequentially("add-up-orders ")
    page.clock.run_for(500)
    expect(page).to_have_url(re.compile(r"\?q=add-up-orders$"))
    query_field(visitor).press_sequentially("-status:failed")
    page.clock.run_for(500)
    expect(page).to_have_url(re.compile(r"\?q=add-up-orders\+-status:failed$"))
    page.clock.resume()
    visitor.keys("Enter")
    assert page.evaluate("history.length") == before + 1
    query_field(visitor).fill("status:failed")
    visitor.keys("Enter")
    expect(page).to_have_url(re.compile(r"\?q=status:failed$"))
    page.go_back()
    expect(query_field(visitor)).to_have_value("add-up-orders -status:failed")
    page.go_back()
    expect(query_field(visitor)).to_have_value("")


def test_runs_appear_and_end_while_somebody_looks(server: RunningServer, visitor: Visitor) -> None:
    page = visitor.open("/?q=step:hold")
    expect(page.get_by_role("heading", name="No run matches")).to_be_visible()
    server.push(ENDLESS)
    run_id = start(server, "endless")
    expect(row(visitor, run_id).get_by_role("img", name="running")).to_be_visible()
    cancel(server, run_id)
    expect(row(visitor, run_id).get_by_role("img", name="cancelled")).to_be_visible()


def test_who_comes_back_finds_the_list_as_it_was_left(runs: Runs, visitor: Visitor) -> None:
    visitor.page.set_viewport_size({"width": 1280, "height": 220})
    page = visitor.open("/")
    row(visitor, runs.good).get_by_role("checkbox").check()
    before = [str(run_id) for run_id in shown(visitor)]
    scroller = page.locator(".scroller")
    scroller.evaluate("each => { each.scrollTop = 50; }")
    visitor.settle()
    # A click of the mouse would scroll to it.
    page.locator(f'a[data-run="{runs.retried}"]').evaluate("each => each.click()")
    expect(page.get_by_role("tree")).to_be_visible()
    deleted = next(run_id for run_id in reversed(before) if run_id != runs.good)
    page.route("**/flow-runs?*", lambda route: answer_without(route, deleted))
    page.go_back()
    expect(row(visitor, runs.good).get_by_role("checkbox")).to_be_checked()
    assert scroller.evaluate("each => each.scrollTop") == 50
    # What was deleted meanwhile is not in it any more.
    expect(page.locator("tbody tr")).to_have_count(len(before) - 1)
    assert deleted not in shown(visitor)
    assert scroller.evaluate("each => each.scrollTop") == 50


def answer_without(route: Route, run_id: str) -> None:
    """As a server answers that has deleted this run."""
    page = route.fetch().json()
    route.fulfill(json={**page, "runs": [run for run in page["runs"] if run["id"] != run_id]})


def tell_of_runs(route: Route, number: int) -> None:
    """As a server tells of so many new runs, and breaks off."""
    ids = (f"ffffffff-0000-7000-8000-{each:012d}" for each in range(number))
    frames = "".join(
        f'id: 1\nevent: run\ndata: {{"id":"{id}","flowId":"f","status":"failed"}}\n\n' for id in ids
    )
    route.fulfill(body=frames, content_type="text/event-stream")


def test_a_list_that_has_grown_long_is_read_anew_where_nobody_has_scrolled_down(
    runs: Runs, visitor: Visitor
) -> None:
    page, asked, streams = visitor.page, list[bool](), list[Route]()
    page.set_viewport_size({"width": 1280, "height": 320})
    page.route("**/flow-runs/stream*", lambda route: streams.append(route))
    page.on("request", lambda request: asked.append("/flow-runs?" in request.url))
    with page.expect_request("**/flow-runs/stream*"):
        visitor.open("/?q=-step:hold")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(len(runs))
    page.locator(".scroller").evaluate("each => { each.scrollTop = 50; }")
    visitor.settle()
    tell_of_runs(streams[0], 1000)
    expect(rows).to_have_count(len(runs) + 1000)
    with page.expect_request(lambda _: sum(asked) == 2):
        visitor.keys(".")
    expect(page.locator(".scroller")).to_have_attribute("aria-busy", "false")
    expect(rows).to_have_count(len(runs))


def test_a_list_whose_stream_is_refused_says_why_and_can_be_reloaded(runs: Runs, visitor: Visitor) -> None:
    """As after the store was restored, which has fewer changes than the list has had."""
    visitor.expect(422)
    page, why = visitor.page, "there is no change 9 yet; the last one is 3"
    refused = {"detail": {"code": "INVALID_REQUEST", "message": why}}
    page.route("**/flow-runs/stream*", lambda route: route.fulfill(status=422, json=refused), times=1)
    visitor.open("/")
    told = page.get_by_role("alert").filter(has_text=why)
    expect(told).to_be_visible()
    with page.expect_response(lambda answer: "/flow-runs/stream" in answer.url and answer.ok):
        told.get_by_role("button", name="Reload the list").click()
    expect(told).to_have_count(0)
    expect(row(visitor, runs.good)).to_be_visible()


def test_bars_that_take_long_come_while_runs_change(visitor: Visitor) -> None:
    page, bars, asked = visitor.page, list[Route](), list[bool]()
    page.route("**/flow-runs/histogram?*", lambda route: bars.append(route))
    page.route("**/flow-runs/stream*", lambda route: tell_of_runs(route, 1))
    page.on("request", lambda request: asked.append("/flow-runs/stream" in request.url))
    # Between two of them is more than half a second: with a read for each second there would be several.
    with page.expect_request(lambda _: sum(asked) == 5):
        visitor.open("/")
    assert len(bars) == 1
    with page.expect_request("**/flow-runs/histogram?*"):
        bars[0].continue_()
    expect(page.locator(".histogram svg")).to_be_visible()


def test_nothing_moves_under_somebody_who_reads(server: RunningServer, runs: Runs, visitor: Visitor) -> None:
    page = visitor.open("/?q=-step:hold")
    expect(page.locator("tbody tr")).to_have_count(len(runs))
    visitor.keys("j")
    before = shown(visitor)
    server.push(BRIEF)
    run_id = start(server, "brief")
    expect(page.get_by_role("button", name="1 new run")).to_be_visible()
    assert shown(visitor) == before
    visitor.keys(".")
    expect(page.locator("tbody tr")).to_have_count(len(before) + 1)
    assert shown(visitor) == [run_id, *before]


SOME = [f"019f1000-0000-7000-8000-00000000000{number}" for number in range(4)]
"""Of one moment: 28 June 2026, 20:51:03 in UTC."""
CURSOR = "AZ8QAAAAcACAAAAAAAAAAA"


def answer_with_one_run(route: Route, number: int, *, more: bool) -> None:
    """As a server answers that has searched for long and found little."""
    run = {"id": SOME[number], "flowId": "f", "flowSlug": "f", "status": "completed"}
    route.fulfill(json={"runs": [run], "nextCursor": CURSOR if more else None, "lastChange": 0})


def test_a_search_says_how_far_it_is_and_can_be_stopped_and_taken_up_again(visitor: Visitor) -> None:
    page, further = visitor.page, re.compile("/flow-runs[?].*cursor=")
    page.route("**/api/v1/flow-runs?*", lambda route: answer_with_one_run(route, 0, more=True))
    page.route(further, unanswered)
    visitor.open("/?q=text:rare")
    said = page.locator(".list-bar").get_by_role("status")
    expect(said).to_contain_text(re.compile(r"1\srun so far; searched back to Sun 28 Jun .*20:51:03"))
    page.get_by_role("button", name="Stop").click()
    expect(said).to_contain_text("older runs were not searched")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    page.route(further, lambda route: answer_with_one_run(route, 1, more=False))
    page.get_by_role("button", name="Search further back").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(said).to_have_text("2\xa0runs")

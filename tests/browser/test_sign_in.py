"""Who gets in, by key or by ticket, and who is out again."""

from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect

from runglass.testing import RunningServer
from tests.browser.chromium import ARGUMENTS, chromium_path
from tests.browser.conftest import Runs
from tests.browser.run_page import panel
from tests.browser.visitor import Visitor
from tests.contract.test_viewer import ticket
from tests.contract.wire import known_key

NO_MORE = "Your session has ended"

pytestmark = pytest.mark.usefixtures("runs")


def type_key(page: Page, key: str) -> None:
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def test_a_key_signs_in_and_is_kept_nowhere(server: RunningServer, stranger: Visitor) -> None:
    page = stranger.open("/")
    type_key(page, server.key)
    expect(page.get_by_role("heading", name="Runs")).to_be_attached()
    secret = server.key.rpartition("_")[2]
    kept = page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    )
    assert secret not in kept
    assert not any(secret in cookie.get("value", "") for cookie in stranger.context.cookies())
    assert secret not in page.content()


def test_a_ticket_leads_to_its_page_and_the_half_that_it_hands_over_is_in_no_address(
    server: RunningServer, runs: Runs, stranger: Visitor, http: httpx2.Client
) -> None:
    path = f"/runs/{runs.good}?step=each_order/describe&iteration=1&tab=output"
    page = stranger.open(ticket(http, path))
    expect(panel(page).get_by_role("tab", name="output", selected=True)).to_be_visible()
    page.get_by_role("link", name="Runs of this flow").click()
    expect(page.get_by_role("heading", name="Runs")).to_be_attached()
    session = stranger.context.new_cdp_session(page)
    entries = session.send("Page.getNavigationHistory")["entries"]
    assert [entry["url"] for entry in entries if "#" in entry["url"]] == []
    page.go_back()
    expect(page).to_have_url(f"{server.address}{path}")
    page.reload()
    expect(page.locator(".run-title")).to_be_visible()


def test_a_link_of_somebody_else_signs_nobody_in_or_out(server: RunningServer, visitor: Visitor) -> None:
    """Another port of this host could set the cookie of its own session, and lead here with the proof."""
    page = visitor.open("/")
    before = page.evaluate("localStorage.getItem('runglass.proof')")
    page.goto("about:blank")
    page = visitor.open(f"/#proof={'x' * 43}")
    expect(page.get_by_role("heading", name="Runs")).to_be_attached()
    assert page.evaluate("localStorage.getItem('runglass.proof')") == before
    assert page.url == f"{server.address}/"


def test_tabs_sign_in_and_out_together(browser: Browser, server: RunningServer) -> None:
    with browser.new_context() as context:
        one, other = context.new_page(), context.new_page()
        for page in (one, other):
            page.goto(server.address)
            expect(page.get_by_label("API key")).to_be_visible()
        type_key(one, server.key)
        for page in (one, other):
            expect(page.locator("tbody tr").first).to_be_visible()
        other.get_by_role("button", name="Sign out").click()
        expect(one.get_by_text(NO_MORE)).to_be_visible()
        assert one.locator("tbody tr").count() == 0
        third = context.new_page()
        third.goto(server.address)
        expect(third.get_by_label("API key")).to_be_visible()


def test_a_page_that_was_left_shows_no_run_after_a_sign_out(
    browser: Browser, server: RunningServer, runs: Runs
) -> None:
    """Browsers freeze a page that is left, and show it as it was: also while the server does not answer."""
    freezes = browser.browser_type.launch(
        executable_path=chromium_path(), args=ARGUMENTS, ignore_default_args=["--disable-back-forward-cache"]
    )
    with freezes, freezes.new_context() as context:
        left, other = context.new_page(), context.new_page()
        left.goto(f"{server.address}/runs/{runs.good}")
        type_key(left, server.key)
        expect(left.locator(".run-title")).to_be_visible()
        left.evaluate("void (window.fetch = () => new Promise(() => {}))")
        left.goto("about:blank")
        other.goto(server.address)
        other.get_by_role("button", name="Sign out").click()
        expect(other.get_by_label("API key")).to_be_visible()
        left.go_back(wait_until="commit")
        expect(left.get_by_text(NO_MORE)).to_be_visible()
        assert left.locator(".run-title").count() == 0


def test_a_run_is_saved_as_a_file(runs: Runs, visitor: Visitor, http: httpx2.Client) -> None:
    page = visitor.open(f"/runs/{runs.good}")
    with page.expect_download() as found:
        page.get_by_role("button", name="Export").click()
    assert found.value.suggested_filename == f"{runs.good}.json"
    wanted = http.get(f"/flow-runs/{runs.good}/export")
    assert Path(found.value.path()).read_bytes() == wanted.content
    visitor.expect(404)
    gone = {"detail": {"message": "it is gone"}}
    page.route("**/export?*", lambda route: route.fulfill(status=404, json=gone))
    page.get_by_role("button", name="Export").click()
    expect(page.get_by_role("alert")).to_have_text("it is gone")


def test_who_signs_out_is_out(visitor: Visitor) -> None:
    visitor.expect(401)
    page = visitor.open("/")
    page.route("**/viewer/session", lambda route: route.abort(), times=1)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status").filter(has_text="The server cannot be reached")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    expect(page.get_by_text(NO_MORE)).to_have_count(0)
    page.go_back()
    page = visitor.open("/")
    expect(page.get_by_label("API key")).to_be_visible()
    assert visitor.context.cookies() == []


def test_a_revoked_key_ends_what_is_shown(
    server: RunningServer, stranger: Visitor, http: httpx2.Client
) -> None:
    key = server.make_key("acme", "demo", "read")
    stranger.sign_in(key)
    page = stranger.open("/")
    expect(page.locator("tbody tr").first).to_be_visible()
    assert http.delete(f"/keys/{known_key(server, key).id}").status_code == 200
    expect(page.get_by_label("API key")).to_be_visible()
    expect(page.get_by_text(NO_MORE)).to_be_visible()
    assert page.locator("tbody tr").count() == 0
    type_key(page, server.key)
    expect(page.locator("tbody tr").first).to_be_visible()
    stranger.keys("Control+k")
    expect(page.get_by_role("combobox", name="Command")).to_be_focused()
    page.keyboard.type("sign out")
    stranger.keys("Enter")
    expect(page.get_by_label("API key")).to_be_visible()

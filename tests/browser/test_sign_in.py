"""Who gets in, by key or by ticket, and who is out again."""

import httpx2
from playwright.sync_api import Page, expect

from runglass.api_keys import digest_of
from runglass.testing import RunningServer
from tests.browser.demo_runs import Runs
from tests.browser.visitor import Visitor

NO_MORE = "This sign-in has ended"


def type_key(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def ticket(server: RunningServer, page: str) -> str:
    answer = httpx2.post(
        f"{server.base_url}/viewer/tickets",
        headers={"Authorization": f"Bearer {server.key}"},
        json={"page": page},
    )
    return str(answer.json()["path"])


def revoke(server: RunningServer, key: str) -> None:
    found = server.call(server.runtime.store.find_key(digest_of(key)))
    assert found is not None
    answer = httpx2.delete(
        f"{server.base_url}/keys/{found.id}", headers={"Authorization": f"Bearer {server.key}"}
    )
    assert answer.status_code == 200


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


def test_the_page_that_was_asked_for_is_shown_after_the_sign_in(
    server: RunningServer, stranger: Visitor
) -> None:
    page = stranger.open("/?q=status%3Afailed")
    type_key(page, server.key)
    expect(page.get_by_label("Query", exact=True)).to_have_value("status:failed")


def test_a_wrong_key_is_told_and_can_be_typed_anew(server: RunningServer, stranger: Visitor) -> None:
    page = stranger.open("/")
    type_key(page, "something else")
    expect(page.get_by_role("alert")).to_contain_text("nk_")
    type_key(page, "nk_live_0000000000000000000000000000000000000000000")
    expect(page.get_by_role("alert")).to_have_text("This key is unknown or revoked.")
    type_key(page, server.key)
    expect(page.get_by_role("heading", name="Runs")).to_be_attached()


def test_a_ticket_signs_in_once_and_shows_its_page(
    server: RunningServer, runs: Runs, stranger: Visitor
) -> None:
    path = ticket(server, "/?q=flow%3Aadd-up-orders")
    page = stranger.open(path)
    expect(page.get_by_label("Query", exact=True)).to_have_value("flow:add-up-orders")
    assert "ticket" not in page.url
    stranger.context.clear_cookies()
    page = stranger.open(path)
    expect(page.get_by_text("That link was used already")).to_be_visible()
    expect(page.get_by_label("API key")).to_be_focused()


def test_who_signs_out_is_out(visitor: Visitor) -> None:
    visitor.expect(401)
    page = visitor.open("/")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    expect(page.get_by_text(NO_MORE)).to_have_count(0)
    page.go_back()
    page = visitor.open("/")
    expect(page.get_by_label("API key")).to_be_visible()
    assert visitor.context.cookies() == []


def test_a_revoked_key_ends_what_is_shown(server: RunningServer, stranger: Visitor) -> None:
    key = server.make_key("acme", "demo", "read")
    stranger.sign_in(key)
    page = stranger.open("/")
    expect(page.locator("tbody tr").first).to_be_visible()
    revoke(server, key)
    expect(page.get_by_label("API key")).to_be_visible()
    expect(page.get_by_text(NO_MORE)).to_be_visible()
    assert page.locator("tbody tr").count() == 0
    type_key(page, server.key)
    expect(page.locator("tbody tr").first).to_be_visible()

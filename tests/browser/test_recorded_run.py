"""The pages of a run that another program has sent: in the list, its tree, and what is kept of a span."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from runglass.testing import RunningServer
from tests.browser.payloads import TOGETHER, texts
from tests.browser.run_page import FOREIGN_ELEMENTS, MISSING, labels, open_run, panel, selected, tab
from tests.browser.sent_traces import TICKET, call, run_of, send, span
from tests.browser.visitor import NARROW, Visitor
from tests.servers import server_with

SHOWN_WHOLE = 500
PLAIN, GOING, DEEP = "11" * 16, "22" * 16, "33" * 16


server = server_with(recording_settle_s=0)


@pytest.fixture(scope="module")
def ticket(server: RunningServer) -> str:
    send(server, *TICKET, service__version="1.4.2", deployment__environment__name="staging")
    return run_of(server, ended=True)


def test_its_tree_has_kinds_and_what_no_column_has_room_for(ticket: str, visitor: Visitor) -> None:
    page = open_run(visitor, ticket)
    visitor.settle()
    assert labels(page) == [
        "POST /tickets, other, completed",
        "answer ticket 860 tokens unattributed, agent, completed",
        "chat gpt-4o gpt-4o-2024-08-06, llm, failed, retried",
        "chat gpt-4o gpt-4o-2024-08-06 · retry of [0], llm, completed",
        "execute_tool refund, tool, completed",
        "chat gpt-4o gpt-4o-2024-08-06, llm, completed",
        "not received, placeholder, completed",
        "follow-up, agent, completed",
    ]
    aside = page.locator(".line.aside .label")
    expect(aside).to_have_text([re.compile("POST /tickets"), re.compile("not received")])


def test_its_head_says_what_its_sender_told_and_offers_nothing_that_it_cannot_do(
    ticket: str, visitor: Visitor
) -> None:
    page = open_run(visitor, ticket)
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("answer ticket")
    expect(heading).to_contain_text("recorded")
    facts = page.locator(".run-facts")
    for told in (
        "completed in 3.0 s",
        "≥ $0.0034, no usage reported for 2 calls",
        "tickets 1.4.2 in staging",
        "session thread-7",
        "user ada",
        "parents that were not received: 1",
    ):
        expect(facts).to_contain_text(told)
    expect(page.get_by_role("group", name="Input")).to_contain_text("Refund my grinder, please")
    expect(page.get_by_role("group", name="Result")).to_contain_text("It is on its way")
    expect(page.get_by_role("button", name="Export")).to_be_visible()
    expect(page.get_by_role("button", name="Run again")).to_have_count(0)
    visitor.keys("?")
    expect(page.get_by_role("dialog")).not_to_contain_text("run again")
    visitor.keys("Escape")
    facts.get_by_role("link", name="tickets").click()
    expect(page.get_by_role("combobox", name="Query")).to_have_value("service:tickets")
    expect(page.locator(f'a[data-run="{ticket}"]')).to_be_visible()
    page.go_back()
    facts.get_by_role("link", name="ada").click()
    expect(page.get_by_role("combobox", name="Query")).to_have_value("user:ada")
    expect(page.locator(f'a[data-run="{ticket}"]')).to_be_visible()


def test_the_panel_has_what_is_kept_of_a_span(ticket: str, visitor: Visitor) -> None:
    page = open_run(visitor, ticket, step="chat_gpt-4o", iteration=1)
    content = panel(page).get_by_role("tabpanel")
    for told in ("0000000000000004", "openinference", "1,200 in + 40 out = 1,240", "$0.0034"):
        expect(content).to_contain_text(told)
    expect(content).to_contain_text('run.step_trace("chat_gpt-4o", attempt=1, loop_index=1)')
    attribute = content.get_by_role("rowheader", name="llm.custom")
    expect(attribute).to_be_hidden()
    content.get_by_text("attribute", exact=False).first.click()
    expect(attribute).to_be_visible()
    expect(content).to_contain_text("kept as it is")
    tab(page, "chat").click()
    expect(content.get_by_role("listitem")).to_have_text(
        [re.compile("user\\s*Refund my grinder, please"), re.compile("assistant\\s*It is on its way")]
    )
    tab(page, "overview").click()
    content.get_by_role("button", name="chat gpt-4o [0]").click()
    expect(page).to_have_url(re.compile(r"\?step=chat_gpt-4o&iteration=0$"))
    expect(content.locator(".error-message")).to_contain_text("connection reset")


def test_spans_that_come_while_somebody_looks_are_shown(server: RunningServer, visitor: Visitor) -> None:
    agent: dict[str, Any] = {"gen_ai__operation__name": "invoke_agent"}
    send(server, span(1, "agent", end=None, trace=GOING, **agent))
    page = open_run(visitor, run_of(server, GOING))
    expect(page.get_by_role("treeitem", name="agent")).to_have_accessible_name(re.compile("agent, running"))
    send(server, call(2, 1, start=10, end=20, tokens=(7, 3), model="llama3.2:3b", trace=GOING))
    expect(page.get_by_role("treeitem", name="chat gpt-4o llama3.2:3b")).to_be_visible()
    expect(page.locator(".run-facts")).to_contain_text("10 tokens")
    send(server, span(1, "agent", end=50, trace=GOING, **agent))
    expect(page.get_by_role("heading", level=1)).to_contain_text("completed")


def test_the_list_shows_it_as_recorded_and_plain_ones_where_they_are_asked_for(
    server: RunningServer, ticket: str, visitor: Visitor
) -> None:
    send(server, span(1, "GET /health", trace=PLAIN), service="health")
    page = visitor.open("/")
    row = page.get_by_role("row").filter(has=page.locator(f'a[data-run="{ticket}"]'))
    expect(row).to_contain_text("tickets answer ticket")
    expect(row.locator(".badge")).to_have_text("recorded")
    expect(page.get_by_text("health")).to_have_count(0)
    page.get_by_role("button", name="recorded").click()
    expect(page.get_by_role("combobox", name="Query")).to_have_value("kind:recorded")
    expect(row).to_be_visible()
    page.goto(f"{server.address}/?q=kind:plain")
    expect(page.get_by_role("link", name="health")).to_be_visible()
    expect(page.locator(".badge")).to_have_text("plain")


def test_a_run_a_thousand_levels_deep_is_shown_on_a_telephone(
    server: RunningServer, visitor: Visitor
) -> None:
    send(server, *(call(at, at - 1, start=at, end=2000, trace=DEEP) for at in range(2, 1200)))
    visitor.page.set_viewport_size({"width": NARROW, "height": 800})
    page = open_run(visitor, run_of(server, DEEP, ended=True))
    expect(page.get_by_role("treeitem").nth(1)).to_have_attribute("aria-level", "2")
    visitor.keys("End")
    expect(selected(page)).to_have_attribute("aria-level", "1000")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0


def test_hostile_text_in_all_that_a_program_sends_is_shown_as_text(
    server: RunningServer, visitor: Visitor
) -> None:
    trace = "55" * 16
    hostile = [text.encode("utf-8", "replace").decode() for text in texts() if len(text) < SHOWN_WHOLE]
    attributes: dict[str, Any] = {
        "user__id": hostile[1],
        "gen_ai__conversation__id": hostile[2],
        "tag__tags": hostile[3:6],
        "input__value": hostile[8],
        "output__value": hostile[9],
    }
    groups = [hostile[first : first + TOGETHER] for first in range(10, len(hostile), TOGETHER)]
    spans = [span(1, hostile[6], 99, end=3000, trace=trace, failed=hostile[0], **attributes)]
    for number, group in enumerate(groups):
        more: dict[str, Any] = {"x__" + text: text for text in group}
        more["events"] = [{"name": text, "timeUnixNano": "1"} for text in group]
        spans.append(span(number + 2, f"carrier {number}", 1, trace=trace, start=number, **more))
    for number, text in enumerate(hostile[10:], len(spans) + 1):
        spans.append(span(number, text, 1, trace=trace, start=number, end=2000))
    send(server, *spans, service=hostile[0], service__version=hostile[1], deployment__environment=hostile[2])
    page = open_run(visitor, run_of(server, trace, ended=True))
    visitor.settle()
    visitor.keys("Home", "Enter")
    parts = panel(page).locator("summary")
    for number, group in enumerate(groups):
        visitor.keys("j")
        expect(panel(page).get_by_role("heading", level=2)).to_have_text(re.compile(rf"^carrier {number}\b"))
        expect(parts).to_have_count(2)
        for part in parts.all():
            part.click()
        assert panel(page).evaluate(MISSING, group) == []
        assert page.evaluate(FOREIGN_ELEMENTS) == 0

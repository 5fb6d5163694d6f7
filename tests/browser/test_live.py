"""A run that is watched while it goes on: it grows, survives a bad connection, and can be cancelled."""

import re
from typing import Any

import httpx2
import msgspec
from playwright.sync_api import Browser, Route, expect

from runglass.testing import RunningServer, running_server
from tests.browser.cutting_proxy import cutting_proxy
from tests.browser.run_page import labels, lines, open_run, panel, selected, toast
from tests.browser.stored_runs import Log, append_events, store_runs
from tests.browser.visitor import Visitor, visiting
from tests.contract.wire import ENDLESS, cancel, start
from tests.servers import server_with

STEADY = """
slug: steady
steps:
  - id: each
    type: loop
    over: list(range(1000))
    steps:
      - {id: hold, type: wait, ms: 150}
      - {id: say, type: llm, model: echo, prompt: "“Grüße” 日本語 {{ index }}"}
      - id: check
        type: code
        retry: {max_attempts: 2, initial_delay_ms: 10}
        code: |
          if attempt == 1 and index % 5 == 3:
              raise ValueError("not yet")
          return {"index": index}
"""
"""Longer than any test looks at it: whoever has seen enough cancels it."""

LARGE = b"12345678901234567890"
"""A number that a page of a browser has no number for."""

STREAMED = """() => {
    const asked = window.fetch;
    window.streamed = [];
    window.fetch = async (...request) => {
        const answer = await asked(...request);
        const path = String(request[0]);
        // The beginning of the log is read by itself.
        if (!path.includes('/trace/stream') || path.endsWith('after=0') || !answer.ok) return answer;
        const [ours, theirs] = answer.body.tee();
        let text = '';
        ours.pipeThrough(new TextDecoderStream()).pipeTo(new WritableStream({write(part) {
            text += part;
            const frames = text.split('\\n\\n');
            text = frames.pop();
            for (const frame of frames) {
                const id = /^id: (\\d+)$/m.exec(frame);
                if (id) window.streamed.push(Number(id[1]));
            }
        }})).catch(() => {});
        return new Response(theirs, {headers: answer.headers});
    };
}"""
"""Notes the number of each event that a stream of a run brings to the page."""


server = server_with(STEADY, ENDLESS, capture="full", log_level="error")


def all_labels(visitor: Visitor) -> list[str]:
    """The lines of the tree that fit the screen, with tokens, once all is unfolded and the flow is known."""
    page = visitor.page
    page.get_by_role("button", name="tokens", exact=True).click()
    page.get_by_role("button", name="all", exact=True).click()
    expect(page.get_by_role("button", name="all", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("treeitem", name=re.compile("^hold.* wait step,")).first).to_be_visible()
    visitor.settle()
    return list(labels(page))


def test_rows_that_are_read_anew_have_what_happens_meanwhile_and_are_followed(
    server: RunningServer, visitor: Visitor
) -> None:
    visitor.expect(404)  # Nobody knows its flow: rows are read anew for a step that was not there.
    log = Log("019f1000-0000-7000-8000-000000000000", start_ms=1_790_000_000_000)
    log.start(steps=3)
    log.add("step_started", stepId="first", attempt=1, stepIndex=0)
    log.add("step_started", stepId="second", attempt=1, stepIndex=1)
    store_runs(server, [log])
    page = open_run(visitor, log.run_id)
    visitor.keys(".")
    expect(page).to_have_url(re.compile("step=second"))
    log.add("step_retrying", stepId="first", attempt=1, stepIndex=0, nextAttempt=2, delayMs=0, durationMs=0)
    log.add("step_started", after_ms=1, stepId="first", attempt=2, stepIndex=0)
    append_events(server, log)
    expect(page).to_have_url(re.compile("step=first&attempt=2"))
    second = page.get_by_role("treeitem", name="second")

    def as_of_before(route: Route) -> None:
        answer = route.fetch()
        log.add("step_completed", stepId="second", attempt=1, stepIndex=1, output={}, durationMs=1)
        append_events(server, log)
        expect(second).to_have_accessible_name(re.compile("completed$"))
        route.fulfill(response=answer)

    page.route("**/trace/outline?*", as_of_before, times=1)
    log.add("step_started", after_ms=1, stepId="third", attempt=1, stepIndex=2)
    append_events(server, log)
    expect(page).to_have_url(re.compile("step=third"))
    expect(second).to_have_accessible_name(re.compile("completed$"))


def test_what_a_run_has_done_is_counted_and_read_while_somebody_looks(
    server: RunningServer, visitor: Visitor
) -> None:
    visitor.expect(404)  # Nobody knows its flow.
    log = Log("019f1000-0000-7000-8000-000000000001", start_ms=1_790_000_000_000)
    log.start(steps=2)
    for step in ("ask", "work"):
        log.add("step_started", stepId=step, attempt=1, stepIndex=0)
    log.add("step_model_call", stepId="ask", attempt=1, modelCall=said(1, "One"))
    store_runs(server, [log])
    page = open_run(visitor, log.run_id, step="ask", tab="chat")
    turns = panel(page).get_by_role("listitem")
    expect(turns).to_have_text([re.compile("assistant *One")])
    facts = page.locator(".run-facts")
    expect(facts).to_contain_text("0 of 2\xa0steps")
    log.add("step_progress", stepId="ask", attempt=1, text="Tw")
    log.add("step_completed", stepId="work", attempt=1, stepIndex=1, output={}, durationMs=0)
    append_events(server, log)
    expect(turns.last).to_contain_text("Tw")
    expect(facts).to_contain_text("1 of 2\xa0steps")
    log.add("step_model_call", stepId="ask", attempt=1, modelCall=said(2, "Two"))
    append_events(server, log)
    expect(turns).to_have_text([re.compile("One"), re.compile("assistant *call 2 *Two$")])
    page.route(f"**/flow-runs/{log.run_id}", lambda route: route.abort(), times=1)
    log.add("step_completed", stepId="ask", attempt=1, stepIndex=0, output={}, durationMs=0)
    log.add("flow_completed", runId=log.run_id, stepId="ask", result={"id": msgspec.Raw(LARGE)})
    append_events(server, log)
    expect(page).to_have_title(re.compile("^completed"))
    expect(page.get_by_role("group", name="Result")).to_contain_text(LARGE.decode())


def said(number: int, text: str) -> dict[str, Any]:
    """A call of a model that has answered."""
    response = {"role": "assistant", "content": text}
    return {
        "number": number,
        "model": "m",
        "durationMs": 0,
        "request": {"messages": []},
        "response": response,
    }


def test_a_failure_is_in_the_strip_while_somebody_looks(server: RunningServer, visitor: Visitor) -> None:
    log = Log("019f1000-0000-7000-8000-000000000002", start_ms=1_790_000_000_000)
    log.start()
    store_runs(server, [log])
    page = visitor.open("/?q=flow:unknown")
    expect(page.locator(f'a[data-run="{log.run_id}"]')).to_be_visible()
    assert page.locator(".histogram .bar.failed").count() == 0
    log.add("flow_failed", runId=log.run_id, error={"code": "CODE_ERROR", "message": "no"})
    append_events(server, log)
    expect(page.locator(".histogram .bar.failed")).to_have_count(1)


def test_following_selects_what_runs_until_somebody_moves_away(
    server: RunningServer, visitor: Visitor
) -> None:
    run_id = start(server, "steady")
    page = open_run(visitor, run_id)
    visitor.keys(".")
    expect(page).to_have_url(re.compile("iteration="))
    for _ in range(3):
        expect(page).not_to_have_url(page.url)
        expect(selected(page)).to_be_in_viewport()
    visitor.keys("k")
    expect(toast(page)).to_have_text("No longer following")
    cancel(server, run_id)


def test_a_page_behind_a_proxy_that_cuts_streams_off_misses_nothing(
    browser: Browser, server: RunningServer, http: httpx2.Client
) -> None:
    with (
        cutting_proxy(server.address, seed=1) as (address, proxy),
        visiting(browser, address, server.key) as visitor,
    ):
        visitor.context.add_init_script(f"({STREAMED})()")
        run_id = start(server, "steady")
        page = open_run(visitor, run_id)
        proxy.heal_after(cuts=4)
        cancel(server, run_id)
        expect(page).to_have_title(re.compile("^cancelled"))
        logged = len(http.get(f"/flow-runs/{run_id}/export?format=jsonl").text.splitlines()) - 1
        page.wait_for_function("last => streamed.at(-1) === last", arg=logged)
        seen = page.evaluate("streamed")
        assert seen == list(range(seen[0], logged + 1))
        live = all_labels(visitor)
        page.reload()
        lines(page).first.wait_for()
        # Of a run that has ended more lines fit the screen.
        assert all_labels(visitor)[: len(live)] == live


def test_a_run_can_be_cancelled_by_who_may_and_who_may_only_read_is_offered_no_change(
    browser: Browser, server: RunningServer, visitor: Visitor
) -> None:
    run_id = start(server, "endless")
    with visiting(browser, server.address, server.make_key("acme", "demo", "read")) as reader:
        page = open_run(reader, run_id)
        expect(page.locator("header")).to_contain_text("live")
        expect(page.get_by_role("button", name="Compare")).to_be_visible()
        assert page.get_by_role("button", name="Cancel").count() == 0
    page = open_run(visitor, run_id)
    visitor.accept_dialogs()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".run-facts")).to_contain_text("cancelled")
    expect(page.locator(".why")).to_contain_text("cancelled by the key nk_live_")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_run_that_has_no_place_yet_says_what_it_waits_for(browser: Browser) -> None:
    with running_server(max_concurrent_runs=1) as server:
        server.push(ENDLESS)
        begun, waits = start(server, "endless"), start(server, "endless")
        with visiting(browser, server.address, server.key) as visitor:
            page = visitor.open(f"/runs/{waits}")
            said = page.get_by_text("Waiting for a process with a free slot")
            expect(said).to_be_visible()
            cancel(server, begun)
            expect(page.get_by_role("treeitem").first).to_be_visible()
            expect(said).to_have_count(0)
        cancel(server, waits)

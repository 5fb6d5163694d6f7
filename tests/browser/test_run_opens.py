"""A run opens with its answer: input, result or error, overrides and costs; and it can be run again."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from runglass.flows.parser import parse_flow
from runglass.testing import RunningServer, running_server
from tests.browser.run_page import lines, open_run
from tests.browser.stored_runs import Log, append_events, store_runs
from tests.browser.visitor import Visitor

FLOW = parse_flow(b"""
slug: support
steps:
  - {id: extract, type: llm, model: "openai:gpt-4o-mini", prompt: "{{ message }}"}
  - id: checks
    type: parallel
    branches:
      rules: [{id: check, type: code, code: "return {}"}]
      model: [{id: judge, type: llm, model: "anthropic:claude-haiku", prompt: "{{ text }}"}]
""")
INPUTS = {"ticket": "Please refund my grinder", "lang": "en"}
RESULT = {"product": "MochaRush", "refund": True}
START_MS = 1_795_000_000_000
"""Wed 18 Nov 2026, 11:06:40 in UTC."""

GOOD, LATE, GOING, LARGE = (f"019f1000-0000-7000-8000-00000000000{number}" for number in range(4))


def support_log(run_id: str, *, result: Any = RESULT, **about: Any) -> Log:
    """The log of such a run, up to its result; without one, up to the end of its last step."""
    log = Log(run_id, start_ms=START_MS)
    log.start("support", steps=3, **about)
    log.add("run_input", inputs=INPUTS)
    log.add(
        "overrides_applied",
        overridden=["extract.model", "judge.prompt"],
        blockOverrides={"extract": {"model": "local:m"}},
    )
    _ask(log, "extract", "local:m", costUnknown="bad_usage")
    log.add("step_started", stepId="check", attempt=1, stepIndex=1)
    log.add("step_completed", after_ms=3, stepId="check", attempt=1, stepIndex=1, output={}, durationMs=3)
    tokens = {"prompt": 900, "completion": 80, "total": 980}
    _ask(log, "judge", "anthropic:claude-haiku", tokens=tokens, costUsd="0.00121")
    if result is not None:
        log.add("flow_completed", runId=run_id, stepId="checks", result=result)
    return log


def _ask(log: Log, step: str, model: str, **told: Any) -> None:
    place: dict[str, Any] = {"stepId": step, "attempt": 1, "stepIndex": 0}
    provider, _, name = model.partition(":")
    log.add("step_started", **place)
    call = {"number": 1, "model": model, "provider": provider, "durationMs": 800, "finishReason": "stop"}
    log.add("step_model_call", after_ms=800, **place, modelCall=call | told)
    spent = {field: told[field] for field in ("tokens", "costUsd") if field in told}
    log.add("step_completed", **place, output={"text": "Yes."}, durationMs=800, modelUsed=name, **spent)


def failed_late() -> Log:
    """A second run of another, under `metadata_only`: it kept its input in the event before its failure."""
    log = support_log(LATE, result=None, rerunOf=GOOD)
    log.events = [event for event in log.events if event["eventType"] != "run_input"]
    for seq, event in enumerate(log.events, 1):
        event["seq"] = seq
    log.add("run_input", inputs={"ticket": "kept late"})
    log.add("flow_failed", runId=LATE, stepId="judge", error={"code": "CODE_ERROR", "message": "it broke"})
    return log


def large_log() -> Log:
    """A run that kept no input, and of a step more than a page reads unasked."""
    log = Log(LARGE, start_ms=START_MS)
    log.start("support", steps=3)
    log.add("step_started", stepId="extract", attempt=1, stepIndex=0)
    log.add("step_output", stepId="extract", attempt=1, stepIndex=0, outputData={"text": "x" * 3_000_000})
    return log


@pytest.fixture(scope="module")
def going() -> Log:
    return support_log(GOING, result=None)


@pytest.fixture(scope="module")
def server(going: Log) -> Iterator[RunningServer]:
    with running_server(log_level="error") as server:
        store_runs(server, [support_log(GOOD), failed_late(), going, large_log()], flow=FLOW)
        yield server


def box(page: Page, name: str) -> Locator:
    return page.get_by_role("group", name=name, exact=True)


def test_a_run_opens_with_its_input_and_its_result_and_no_step_is_read_for_them(visitor: Visitor) -> None:
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url.partition(GOOD)[2]))
    page = open_run(visitor, GOOD)
    expect(box(page, "Input")).to_contain_text('ticket: "Please refund my grinder"')
    expect(box(page, "Result")).to_contain_text('product: "MochaRush"')
    ends = [f"/trace/stream?after={after}" for after in (0, len(support_log(GOOD).events) - 2)]
    assert [path for path in asked if "/trace" in path and "outline" not in path] == ends


def test_the_log_is_left_where_its_steps_begin(visitor: Visitor) -> None:
    with visitor.page.expect_event("requestfailed") as left:
        page = open_run(visitor, LARGE)
    assert left.value.url.endswith("/trace/stream?after=0")
    expect(box(page, "Input")).to_contain_text("Not kept.")


def test_an_input_that_was_kept_as_the_run_failed_is_beside_the_error(visitor: Visitor) -> None:
    page = open_run(visitor, LATE)
    expect(box(page, "Input")).to_contain_text("kept late")
    expect(page.locator(".why")).to_contain_text("CODE_ERROR: it broke")


def test_overrides_costs_and_times_are_told_as_the_terminal_tells_them(visitor: Visitor) -> None:
    visitor.page.clock.set_fixed_time(datetime(2026, 11, 20, tzinfo=UTC))
    page = open_run(visitor, GOOD)
    facts, notes = page.locator(".run-facts"), page.locator(".notes")
    expect(facts).to_contain_text("≥ $0.00121, no usage reported for 1\xa0call")
    expect(facts).to_contain_text("Wed 18 Nov 11:06:40")
    expect(notes).to_contain_text("extract.model openai:gpt-4o-mini → local:m")
    expect(notes).to_contain_text("judge.prompt")
    expect(notes).to_contain_text("local:m 1\xa0call, no usage reported for 1\xa0call")
    expect(notes).to_contain_text("anthropic:claude-haiku 1\xa0call, 980\xa0tokens, $0.00121")


def test_the_result_of_a_run_that_is_watched_comes_without_moving_the_tree(
    server: RunningServer, going: Log, visitor: Visitor
) -> None:
    with visitor.page.expect_request(f"**/trace/stream?after={len(going.events)}"):
        page = open_run(visitor, GOING)
    expect(box(page, "Input")).to_contain_text("Please refund my grinder")
    expect(page.locator(".notes")).to_contain_text("openai:gpt-4o-mini → local:m")
    before = lines(page).first.bounding_box()
    going.add("flow_completed", runId=GOING, stepId="checks", result={"answer": "told\n" * 40})
    append_events(server, going)
    expect(box(page, "Result")).to_contain_text("told")
    assert lines(page).first.bounding_box() == before


def test_costs_and_previews_are_in_the_list(visitor: Visitor) -> None:
    page = visitor.open("/")
    row = page.locator("tr", has=page.locator(f'a[data-run="{GOOD}"]'))
    expect(row.locator(".c-input")).to_have_text('{"ticket":"Please refund my grinder","lang":"en"}')
    expect(row.locator(".c-outcome")).to_contain_text("no usage reported for 1\xa0call; with overrides")
    expect(row.locator(".c-outcome")).to_contain_text('{"product":"MochaRush","refund":true}')
    expect(row.locator(".c-cost")).to_have_text("≥ $0.00121")
    expect(row.locator(".c-cost")).to_have_attribute("title", "≥ $0.00121, no usage reported for 1\xa0call")


def test_a_run_is_run_again_and_the_new_one_leads_back(visitor: Visitor) -> None:
    bodies: list[Any] = []

    def start(route: Route) -> None:
        bodies.append((route.request.url.partition("flow-runs/")[2], route.request.post_data_json))
        route.fulfill(status=202, json={"executionId": LATE})

    visitor.page.route("**/rerun", start)
    page = open_run(visitor, GOOD)
    visitor.keys("r")
    expect(page.get_by_role("button", name="Same version, v1")).to_be_focused()
    visitor.keys("Escape")
    expect(page.get_by_role("button", name="Same version, v1")).to_have_count(0)
    page.get_by_role("button", name="Run again").click()
    page.get_by_role("button", name="Production version").click()
    expect(page).to_have_url(re.compile(f"/runs/{LATE}$"))
    assert bodies == [(f"{GOOD}/rerun", {"version": "production"})]
    expect(page.get_by_role("link", name="compare")).to_have_attribute("href", f"/compare/{GOOD}/{LATE}")
    page.get_by_role("link", name=f"…{GOOD[-8:]}").click()
    expect(page).to_have_url(re.compile(f"/runs/{GOOD}$"))

"""Hostile data in everything that a run has: pages show it as text, execute none and stay whole."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Route, expect

from runglass.testing import RunningServer, running_server
from tests.browser.payloads import BIG, TOGETHER, kinds, structures, texts
from tests.browser.run_page import FOREIGN_ELEMENTS, MISSING, look_at_each_tab, open_run, panel, selected
from tests.browser.stored_runs import Log, store_runs
from tests.browser.visitor import Visitor

SHOWN_WHOLE = 2_000
"""Longer texts are cut until somebody asks for all."""
READ_ON = """count => {
    const scroller = document.querySelector('.scroller');
    scroller.scrollTop = scroller.scrollHeight;
    return document.querySelectorAll('tbody tr').length >= count;
}"""
OPEN_ALL = "document.querySelectorAll('.diff-row > [aria-expanded=false]').forEach((each) => each.click())"

START_MS = 1_790_000_000_000
TEXTS_RUN, NAMES_RUN, STRUCTURES_RUN = (
    f"01900000-0000-7000-8000-00000000000{number}" for number in (1, 2, 3)
)


def carried(text: str) -> str:
    """What a field that must be well-formed can have of a text: no half characters."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


STRUCTURES = [
    *structures(),
    json.dumps(BIG),
    *(json.dumps(text) for text in texts() if carried(text) != text),
]
REFUSED = {
    content: f'"refused-{number}"'
    for number, content in enumerate(STRUCTURES)
    if max(content.count("["), content.count('{"a"')) > 500 or r"\ud" in content
}
"""Depths and half characters that the server takes from nobody, by the JSON text that stands for each."""


def raw(json_text: str) -> msgspec.Raw:
    return msgspec.Raw(json_text.encode())


def a_step(log: Log, step: str, content: str, short: Sequence[str], errors: Sequence[str]) -> None:
    """A step with the JSON `content` in all that it kept and `short` as names: an attempt for each error."""
    output = raw(f'{{"value":{content}}}')
    for attempt, error in enumerate(errors, 1):
        place: dict[str, Any] = {"stepId": step, "attempt": attempt, "stepIndex": 0}
        log.add("step_started", **place, name=short[0])
        log.add("step_input", **place, inputData=output)
        for number, text in enumerate(short, 1):
            log.add("step_progress", **place, text=text)
            log.add("step_model_call", after_ms=1, **place, modelCall=a_call(number, text, content))
        log.add("step_output", **place, outputData=output, outputContext=output)
        failure: dict[str, Any] = dict.fromkeys(("message", "traceback", "exception"), error)
        failure |= {"code": short[0], "more": raw(content)}
        spent: dict[str, Any] = {"modelUsed": short[0], "durationMs": 1}
        if attempt < len(errors):
            log.add("step_retrying", **place, error=failure, nextAttempt=attempt + 1, delayMs=0, **spent)
        elif len(errors) % 2:
            log.add("step_error", **place, error=failure, name=short[0], **spent)
        else:
            names: dict[str, Any] = {"name": short[0], "finishReason": short[0]}
            log.add("step_completed", **place, output=output, **names, **spent)


def a_call(number: int, text: str, content: str) -> dict[str, Any]:
    """A model call with one text in every field, and with JSON where a message may have some."""
    function = {"name": text, "arguments": text, "description": text}
    tool_call = {"id": text, "type": text, "function": function}
    return {
        "number": number,
        **dict.fromkeys(("model", "provider", "modelUsed", "note", "finishReason", "requestId"), text),
        **dict.fromkeys(("costUnknown", "errorCode", "startedAt"), text),
        "request": {
            "system": text,
            "settings": raw(content),
            "toolChoice": text,
            "outputSchema": raw(content),
            "tools": [{"type": text, "function": {**function, "parameters": raw(content)}}],
            "messages": [
                {"role": text, "content": text},
                {"role": "user", "content": raw(content)},
                {"role": "assistant", "content": None, "toolCalls": [tool_call]},
                {"role": "tool", "toolCallId": text, "content": text},
            ],
        },
        "response": {"role": text, "content": text, "toolCalls": [tool_call]},
    }


def a_log(run_id: str) -> Log:
    log = Log(run_id, start_ms=START_MS)
    log.start()
    return log


def groups() -> list[list[str]]:
    found = texts()
    return [found[first : first + TOGETHER] for first in range(0, len(found), TOGETHER)]


def listed_logs() -> list[Log]:
    """A run for each text, which has it in everything that it says of itself in lists."""
    logs = []
    for number, text in enumerate(map(carried, texts())):
        log = Log(f"0190ffff-0000-7000-8000-{number:012x}", start_ms=START_MS + 1000 * number)
        about: dict[str, Any] = dict.fromkeys(("sessionId", "startedBy", "traceParent", "traceState"), text)
        log.start(text, triggerType=text, **about)
        log.add("flow_failed", runId=log.run_id, stepId=text, error={"code": text, "message": text})
        logs.append(log)
    return logs


def texts_log() -> Log:
    """Each text in every field of a step but its id."""
    log = a_log(TEXTS_RUN)
    all_short = [carried(text) for text in texts() if len(text) < 200]
    log.add("run_input", inputs={text: text for text in all_short})
    log.add(
        "overrides_applied",
        overridden=[f"s0.{text}" for text in all_short],
        blockOverrides={"s0": {text: text for text in all_short}},
    )
    for number, group in enumerate(groups()):
        short = [carried(text) for text in group]
        content = json.dumps({text: text for text in short})
        a_step(log, f"s{number}", content, short, ["\n".join(short)] * (1 + number % 2))
    error = {"code": "<b>", "message": "\n".join(map(carried, texts()))}
    log.add("flow_failed", runId=TEXTS_RUN, stepId="s0", error=error)
    return log


def names_log() -> Log:
    """Each kind of text as the id of a step, which only a run from elsewhere can have."""
    log = a_log(NAMES_RUN)
    for text in kinds():
        a_step(log, carried(text), "1", ["x"], ["x"])
    log.add("flow_cancelled", runId=NAMES_RUN, reason="<script>window.attacked=1</script>")
    return log


def structures_log() -> Log:
    """What is more than text: each in a step, that which no codec of the server lets through under a name."""
    log = a_log(STRUCTURES_RUN)
    for number, content in enumerate(STRUCTURES):
        a_step(log, f"s{number}", REFUSED.get(content, content), ["x"], ["x"])
    log.add("flow_completed", runId=STRUCTURES_RUN, stepId="s0", result=raw('{"value":1}'))
    return log


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(log_level="error") as server:
        store_runs(server, [texts_log(), names_log(), structures_log(), *listed_logs()])
        yield server


def test_each_text_is_shown_as_the_text_that_it_is(visitor: Visitor) -> None:
    visitor.expect(404)  # Nobody knows its flow.
    page = open_run(visitor, TEXTS_RUN)
    expect(page.get_by_role("group", name="Input").locator(".json-name")).not_to_have_count(0)
    expect(page.locator(".overrides .note-part")).not_to_have_count(0)
    visitor.keys("Enter")
    for number, group in enumerate(groups()):
        visitor.keys("j", "2")
        expect(panel(page).get_by_role("heading", level=2)).to_have_text(re.compile(rf"^s{number}\b"))
        expect(panel(page).locator(".json-name")).to_have_count(1 + len(set(map(carried, group))))
        whole = [carried(text) for text in group if len(text) < SHOWN_WHOLE]
        assert panel(page).evaluate(MISSING, whole) == []
        look_at_each_tab(visitor)


def let_through(route: Route) -> None:
    """Answers as a server would that refuses nothing."""
    answer = route.fetch()
    text = answer.text()
    for content, name in REFUSED.items():
        text = text.replace(name, content)
    route.fulfill(response=answer, body=text)


def test_structures_of_any_depth_and_size_leave_the_page_whole(visitor: Visitor) -> None:
    visitor.expect(404)  # Nobody knows its flow.
    visitor.page.route("**/trace?*attempt=*", let_through)
    page = open_run(visitor, STRUCTURES_RUN)
    visitor.keys("Enter")
    for number in range(len(STRUCTURES)):
        visitor.keys("j", "2")
        expect(panel(page).get_by_role("heading", level=2)).to_have_text(f"s{number}")
        expect(panel(page).locator(".json-line, pre").first).to_be_visible()
        more = panel(page).get_by_role("button", name=re.compile("^Show .* more$"))
        if more.count():
            more.click()
            expect(panel(page)).not_to_contain_text("the first 66 kB")
        look_at_each_tab(visitor)


def test_steps_may_be_called_anything(visitor: Visitor) -> None:
    # Not everything can be part of a path, and the server says so.
    visitor.expect(400, 404, 414, 422)
    page = open_run(visitor, NAMES_RUN)
    visitor.keys("Enter")
    for _ in kinds():
        visitor.keys("j")
    expect(selected(page)).to_have_attribute("aria-posinset", str(len(kinds())))
    assert page.evaluate(FOREIGN_ELEMENTS) == 0


def test_hostile_runs_are_compared(visitor: Visitor) -> None:
    page = visitor.open(f"/compare/{TEXTS_RUN}/{NAMES_RUN}?all=true")
    expect(page.locator(".diff-row").first).to_be_visible()
    page.evaluate(OPEN_ALL)
    expect(page.get_by_role("button", expanded=True)).not_to_have_count(0)
    assert page.evaluate(FOREIGN_ELEMENTS) == 0


def test_every_run_of_the_list_is_shown_whatever_is_in_it(visitor: Visitor) -> None:
    wanted = ["f"] * 3 + list(map(carried, texts()))
    page = visitor.open("/")
    page.wait_for_function(READ_ON, arg=len(wanted), polling=50)
    shown = page.locator("tbody td.c-flow bdi")
    expect(shown).to_have_count(len(wanted))
    assert shown.all_text_contents()[::-1] == wanted


def test_anything_can_be_asked_for(visitor: Visitor) -> None:
    visitor.expect(422)
    page = visitor.open("/")
    field = page.get_by_role("combobox", name="Query")
    for text in texts()[::TOGETHER]:
        field.fill(text)
        visitor.keys("Enter")
        visitor.settle()
        expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_attached()
        assert page.evaluate(FOREIGN_ELEMENTS) == 0

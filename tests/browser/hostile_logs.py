"""Logs of runs with hostile data in every field that a run can have."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.browser.payloads import BIG, kinds, structures, texts
from tests.browser.stored_runs import Log

START_MS = 1_790_000_000_000
TEXTS_RUN, NAMES_RUN, STRUCTURES_RUN = (
    f"01900000-0000-7000-8000-00000000000{number}" for number in (1, 2, 3)
)

TOGETHER = 10
"""So many payloads are in one step, which is one visit of its panel."""


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

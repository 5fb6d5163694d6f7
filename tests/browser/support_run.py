"""A run with overrides, of two models of which one told no usage, with its input and its result."""

from typing import Any

from runglass.flows.parser import parse_flow
from tests.browser.stored_runs import Log

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


def support_log(run_id: str, *, result: Any = RESULT) -> Log:
    """The log of such a run, up to its result; without one, up to the end of its last step."""
    log = Log(run_id, start_ms=START_MS)
    log.add(
        "run_started",
        runId=run_id,
        flowId="support",
        flowSlug="support",
        stepCount=3,
        triggerType="api",
        version=1,
    )
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

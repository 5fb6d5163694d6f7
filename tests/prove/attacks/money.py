"""Ways to spend more than a budget has, or to be told what pays for it."""

from tests.prove.attacking.attack import Family, Field, Steps, loop
from tests.prove.attacking.hostile_provider import FORMS
from tests.prove.attacking.http import SPENDER, Answer
from tests.prove.attacking.seed import BUDGET_USD, CALL, CALL_USD, spent_usd
from tests.prove.attacks.providers import warm

FAMILY = Family("money")

SPEND = {**CALL, "model": "fake:dear"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
RETRY = {"max_attempts": 100, "initial_delay_ms": 0, "max_delay_ms": 0}
FLOWS: dict[str, tuple[Steps, int, str]] = {
    "two-hundred-at-once": ([SPEND], 200, "x"),
    # As many at once as the budget has room for: one that is refused ends all.
    "loop-beyond-the-budget": (loop(200, [{**SPEND, "prompt": "x"}], beside=4), 1, "x"),
    # Each try is a call, and none gives the right answer.
    "retries-beyond-the-budget": ([{**SPEND, "output_schema": SCHEMA, "retry": RETRY}], 4, "x"),
    "message-of-9-mb-to-a-model": ([SPEND], 1, "word " * 1_900_000),
}


async def _execute(field: Field, message: str, slug: str = "spend") -> Answer:
    return await field.call("POST", f"/seq/{SPENDER}/{slug}/execute", {"message": message}, role="spend-run")


async def _spent(field: Field, spending: tuple[Steps, int, str]) -> None:
    steps, times, message = spending
    flow = {"slug": "spends", "steps": steps}
    await field.call("PUT", f"/flows/{SPENDER}/spends", flow, role="spend-admin")
    await field.together(times, lambda _: _execute(field, message, "spends"))


async def _within_bounds(field: Field) -> None:
    """What the provider counts is on the project's books, and over the budget by one call at most."""
    calls = len(await field.hostile.asked())
    cost, spent = calls * CALL_USD, await spent_usd(field.settings)
    if not calls or spent < cost or cost > BUDGET_USD + CALL_USD:
        field.complain(f"{calls} calls cost ${cost} of ${BUDGET_USD}, the project's books say ${spent}")


FAMILY.each("run", _spent, FLOWS, leaves_work=True, prepare=warm, judge=_within_bounds)


@FAMILY.attack("run", leaves_work=True, prepare=warm)
async def key_in_a_providers_error(field: Field) -> None:
    """A provider whose error has the key in it: plain, in base64, reversed, escaped."""
    for name, form in FORMS.items():
        answer = await _execute(field, f'{{"send": "refusal", "form": "{name}"}}')
        run_id = (answer.json().get("detail") or {}).get("executionId")
        trace = await field.call("GET", f"/flow-runs/{run_id}/trace", role="spend-run")
        if trace.status != 200 or form.encode() in answer.body + trace.body:
            field.complain(f"the provider's key, {name}, is in an answer or a trace ({trace.status})")
        if form in field.log.read_text(errors="replace"):
            field.complain(f"the provider's key, {name}, is in the log")

"""Ways to spend more than a budget has, or what is not the attacker's to spend."""

import json
from typing import Any

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field
from tests.prove.attacking.http import Answer
from tests.prove.attacking.places import SPENDER
from tests.prove.attacking.provider import PROVIDER_KEY
from tests.prove.attacking.seed import BUDGET_USD, CALL_USD, spent_usd

FAMILY = Family("money")


async def warm(field: Field) -> None:
    """The first call of a model makes the server load the provider's library, which is no attack."""
    await _spend(field, "spend")


async def within_bounds(field: Field) -> None:
    """What the provider counts is on the project's books, and over the budget by one call at most."""
    cost, spent = field.provider.cost_usd, await spent_usd(field.settings)
    if spent < cost:
        field.complain(f"{len(field.provider.heard)} calls cost ${cost}, the project's books say ${spent}")
    if cost > BUDGET_USD + CALL_USD:
        field.complain(f"calls cost ${cost} of a budget of ${BUDGET_USD}")


async def _spend(field: Field, slug: str, settings: dict[str, Any] | None = None, **fields: Any) -> Answer:
    if settings is not None:
        fields["settings"] = settings
    overrides = {"spend": fields} if fields else {}
    body = {"message": "x", "blockOverrides": overrides}
    return await field.call("POST", f"/seq/{SPENDER}/{slug}/execute", body, role="spend-run")


async def _flooded(field: Field, settings: dict[str, Any], slug: str = "spend") -> None:
    await field.flood(lambda _: _spend(field, slug, settings), beside=4, per_s=20)


@FAMILY.attack("run", finding=6, leaves_work=True, prepare=warm, judge=within_bounds)
async def usage_not_told(field: Field) -> None:
    """`extra_body.stream_options.include_usage=false`: calls whose usage nobody tells."""
    await _flooded(field, {"extra_body": {"stream_options": {"include_usage": False}}}, "spend-dear")


@FAMILY.attack("run", finding=6, leaves_work=True, prepare=warm, judge=within_bounds)
async def model_by_extra_body(field: Field) -> None:
    """`extra_body.model`: the dear model at the price of the cheap one."""
    await _flooded(field, {"extra_body": {"model": "dear"}})


@FAMILY.attack("run", finding=6, leaves_work=True, prepare=warm, judge=within_bounds)
async def two_hundred_at_once(field: Field) -> None:
    """200 runs at once on a budget for five calls."""
    await field.together(200, lambda _: _spend(field, "spend-dear"))


@FAMILY.attack("run", leaves_work=True, prepare=warm, judge=within_bounds)
async def loop_beyond_the_budget(field: Field) -> None:
    """One run with 200 calls side by side."""
    step = {
        "id": "spend",
        "type": "llm",
        "model": "fake:dear",
        "prompt": "x",
        "settings": {"max_tokens": 100},
    }
    loop = {"id": "each", "type": "loop", "over": "list(range(200))", "max_concurrency": 200, "steps": [step]}
    flow = {"slug": "many", "steps": [loop]}
    await field.call("PUT", f"/flows/{SPENDER}/many", flow, role="spend-admin")
    await field.call("POST", f"/seq/{SPENDER}/many/execute", {}, role="spend-run")


@FAMILY.attack("run", leaves_work=True, prepare=warm, judge=within_bounds)
async def retries_beyond_the_budget(field: Field) -> None:
    """A step whose answer is never right, tried 100 times: each try is a call."""
    step = {
        "id": "spend",
        "type": "llm",
        "model": "fake:dear",
        "prompt": "x",
        "settings": {"max_tokens": 100},
        "output_schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        "retry": {"max_attempts": 100, "initial_delay_ms": 0, "max_delay_ms": 0},
    }
    flow = {"slug": "again", "steps": [step]}
    await field.call("PUT", f"/flows/{SPENDER}/again", flow, role="spend-admin")
    await field.together(
        4, lambda _: field.call("POST", f"/seq/{SPENDER}/again/execute", {}, role="spend-run")
    )


@FAMILY.attack("run", leaves_work=True, prepare=warm, judge=within_bounds)
async def several_choices(field: Field) -> None:
    """`n`, `best_of` and other fields that make one call cost many."""
    extra = {"n": 50, "best_of": 50, "max_completion_tokens": 10**6, "service_tier": "priority"}
    await _flooded(field, {"extra_body": extra}, "spend-dear")
    if any(heard.body.get("n") == 50 for heard in field.provider.heard):
        field.complain("a `run` key has set `n` to 50 by `extra_body`, which multiplies the price")


@FAMILY.attack("run", finding=6, leaves_work=True, prepare=warm)
async def any_model(field: Field) -> None:
    """A `run` key names models that the project's flows do not, with the server's own provider key."""
    for model in ("fake:secret-model", "fake:o9-ultra"):
        await _spend(field, "spend", model=model)
    if asked := {str(heard.body.get("model")) for heard in field.provider.heard} - {"cheap", "dear"}:
        field.complain(f"the provider was asked for {sorted(asked)}")


@FAMILY.attack("run", finding=6, leaves_work=True, prepare=warm)
async def extra_headers(field: Field) -> None:
    """`extra_headers` in place of Host, Authorization and Cookie."""
    headers = {
        "Host": "evil.example",
        "Authorization": "Bearer evil",
        "Cookie": "a=evil",
        "X-Forwarded-For": "evil",
    }
    await _spend(field, "spend", {"extra_headers": headers})
    for heard in field.provider.heard:
        if found := sorted(name for name, value in heard.headers.items() if "evil" in value):
            field.complain(f"the provider got the caller's own {', '.join(found)}")


@FAMILY.attack("run", finding=8, leaves_work=True, prepare=warm)
async def key_in_a_providers_error(field: Field) -> None:
    """A provider whose error has the key in it: plain, in base64, reversed, escaped."""
    import base64

    key = PROVIDER_KEY
    forms = {
        "plain": key,
        "base64": base64.b64encode(key.encode()).decode(),
        "base64 of the header": base64.b64encode(f"Bearer {key}".encode()).decode(),
        "reversed": key[::-1],
        "percent": "".join(f"%{byte:02X}" for byte in key.encode()),
    }
    for name, form in forms.items():
        field.provider.refusal = f"the key {form} is not known"
        answer = await _spend(field, "spend")
        run_id = (answer.json().get("detail") or {}).get("executionId")
        trace = await field.call("GET", f"/flow-runs/{run_id}/trace", role="spend-run")
        where = [
            place for place, told in (("answer", answer), ("trace", trace)) if form.encode() in told.body
        ]
        if form in field.log.read_text(errors="replace"):
            where.append("log")
        if where:
            field.complain(f"the provider's key, {name}, is in {' and '.join(where)}")


@FAMILY.attack("run", leaves_work=True, prepare=warm)
async def message_of_9_mb_to_a_model(field: Field) -> None:
    """A message of 9 MB to a model with a price: what it costs to send is bounded before it is sent."""
    body = {"message": "word " * 1_900_000}
    await field.call("POST", f"/seq/{SPENDER}/spend-dear/execute", body, role="spend-run")
    sent = max((len(json.dumps(heard.body)) for heard in field.provider.heard), default=0)
    if sent > 20_000_000:
        field.complain(f"the provider got {sent:,} bytes")

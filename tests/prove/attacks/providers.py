"""What a model's provider sends that is to fill memory, stop the loop, or spoil the books.

Every attack is some runs in a project with a budget, whose provider sends what they name
(`attacking/hostile_provider.py`). Each run must come to an end that the attack allows, whose call is on the
books, and must be readable and deletable afterwards; and the provider is asked no more often than that. Odd
values and usage are in `tests/unit/engine`. And ways to spend more than a budget has, or to be told what pays
for it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

from tests.prove.attacking.attack import API, LOOK, Family, Field, Steps, loop
from tests.prove.attacking.hostile_provider import FORMS
from tests.prove.attacking.http import BANK, SPENDER, Answer, head
from tests.prove.attacking.seed import BUDGET_USD, CALL, CALL_USD, spent_usd

FAMILY = Family("provider")

LIMIT_S = 60.0
LINES_LIMIT_S = 180.0
"""Millions of lines may take a while, as long as they wait for others."""
POLL_S = 0.1
STREAM_S, STREAM_APART_S = 5.0, 0.03
STREAM_FLOOR_MS = 30.0
"""Streams are calls as all make them: the neighbour gets hardly more than three times its quiet value."""
RESERVED_USD = Decimal("0.04")
"""Less than is reserved for any call here, and more than one costs that tells its usage as it is."""
MOST_USD = Decimal("0.25")
"""More than may be booked for any call here: twice what is reserved."""
MOST_ASKED = 3
"""For one run: two attempts, and a request in another form."""

TOO_LARGE = ("OUTPUT_TOO_LARGE",)
BROKEN = ("PROVIDER_UNAVAILABLE", "PROVIDER_ERROR")
REFUSED = (*BROKEN, *TOO_LARGE, "RATE_LIMITED")
DONE = ("completed",)

Send = dict[str, Any]


class Sent(NamedTuple):
    """A run for each of `sends`, all at once, each of which must end in one of these ways."""

    sends: Sequence[Send]
    ends: Sequence[str]
    flow: str = "ask"
    tools: Sequence[Any] = ()


async def _start(field: Field, send: Send, flow: str = "ask", tools: Sequence[Any] = ()) -> str:
    """The id of a run whose provider sends that; empty where none was started."""
    # A job takes nothing that needs a caller.
    target = f"/seq/{BANK}/{flow}/{'execute' if tools else 'jobs'}"
    body = {"message": json.dumps(send), **({"tools": tools} if tools else {})}
    answer = (await field.call("POST", target, body, role="bank-run", timeout_s=LIMIT_S)).json()
    run_id = str(answer.get("executionId") or (answer.get("detail") or {}).get("executionId") or "")
    if run_id:
        field.acknowledged.append((run_id, "bank-read"))
    return run_id


async def _ended(field: Field, run_id: str) -> str:
    """How a run has ended: `completed`, or the code of its error; waits for it."""
    if not run_id:
        return "no run"
    while True:
        summary = (await field.call("GET", f"/flow-runs/{run_id}", role="bank-read")).json()
        if summary.get("status") not in (None, "pending", "running"):
            break
        await asyncio.sleep(POLL_S)
    error = summary.get("error")
    return str(error.get("code") if isinstance(error, dict) else error or summary["status"])


async def warm(field: Field) -> None:
    """The first call of a model makes the server load the provider's library, which is no attack."""
    for flow in ("ask", "ask-whole"):
        await _ended(field, await _start(field, {"send": "answer"}, flow))
    await field.hostile.asked()


async def _readable(field: Field, runs: Sequence[str]) -> None:
    """Whatever shows a run shows these, and the list of all."""
    for run, other in zip(runs, [*runs[1:], runs[0]], strict=True):
        places = ["", "/trace", "/trace/outline", "/trace/timeline", "/trace/stream", f"/diff/{other}"]
        places += ["/export", "/export?format=otlp"]
        for place in places:
            answer = await field.call("GET", f"/flow-runs/{run}{place}", role="bank-admin", timeout_s=5.0)
            if answer.status != 200:
                field.complain(f"GET {place.replace(other, 'OTHER') or 'summary'} gave {answer.status}")
    for place in ("/flow-runs?limit=100", "/flow-runs/histogram", f"/seq/{BANK}/ask/jobs"):
        answer = await field.call("GET", place, role="bank-admin")
        if answer.status != 200:
            field.complain(f"GET {place} gave {answer.status}")


async def _books(field: Field, runs: Sequence[str], spent: Decimal, asked: int, *, is_charged: bool) -> None:
    """What was spent on these runs is what they say that they cost, and no less or more than it may be."""
    booked = await spent_usd(field.settings, BANK) - spent
    if not 0 <= booked <= MOST_USD * asked:
        field.complain(f"{asked} calls have moved the books by ${booked}")
    if is_charged and booked < RESERVED_USD * asked:
        field.complain(f"{asked} calls are booked with ${booked}, less than was reserved")
    costs = [
        (await field.call("GET", f"/flow-runs/{run}", role="bank-read")).json().get("totals") or {}
        for run in runs
    ]
    told = sum((Decimal(str(totals.get("costUsd") or 0)) for totals in costs), start=Decimal(0))
    if told != booked:
        field.complain(f"the runs say ${told}, the books ${booked}")


async def _gone(field: Field, runs: Sequence[str]) -> None:
    """Ended runs refuse to be cancelled, and can be deleted."""
    field.acknowledged.clear()
    for run in runs:
        target = f"/flow-runs/{run}"
        statuses = [
            (await field.call("DELETE", f"{target}{how}", role="bank-admin")).status
            for how in ("", "?purge=true")
        ]
        statuses.append((await field.call("GET", target, role="bank-admin")).status)
        if statuses != [409, 202, 404]:
            field.complain(f"cancelling, deleting and reading an ended run gave {statuses}")


async def _runs(field: Field, sent: Sent) -> None:
    """One that ends as if the provider had worked for it is charged; one with too much is tried once."""
    sends, ends = sent.sends, sent.ends
    most_asked = 1 if ends == TOO_LARGE else MOST_ASKED
    is_charged = not {"completed", "PROVIDER_ERROR"} & set(ends)
    field.complain("the runs did not come to their end")
    spent = await spent_usd(field.settings, BANK)
    runs = await field.together(
        len(sends), lambda number: _start(field, sends[number], sent.flow, sent.tools)
    )
    found = await field.together(len(runs), lambda number: _ended(field, runs[number]))
    field.complaints.clear()
    for end, send in zip(found, sends, strict=True):
        if end not in ends:
            field.complain(f"ends with {end}: {json.dumps(send)}"[:150])
    asked = await field.hostile.asked()
    for each in asked:
        # Elsewhere than the provider's address leads to.
        if each.method != "POST" or not each.host.startswith("127.0.0.1:") or not each.path.startswith("/v1"):
            key = " with the key" if each.has_key else ""
            field.complain(f"asked {each.method} {each.host}{each.path}{key}")
    often, wanted = Counter(each.message for each in asked), Counter(map(json.dumps, sends))
    if over := [message for message, runs in wanted.items() if often[message] > most_asked * runs]:
        field.complain(f"the provider was asked {often[over[0]]} times: {over[0]}")
    await _readable(field, runs)
    await _books(field, runs, spent, len(asked), is_charged=is_charged)
    await _gone(field, runs)


def _long(*what: str) -> list[Send]:
    return [{"send": "long", "what": each} for each in what]


CLOSED = [{"send": "closed", "after": after} for after in (0, 1, 12, 40, 104, 106, 180, 220, 224, 350)]
SLOW = [
    {"send": "slow", "begun": begun, "again": again} for begun in ("", "head", "part") for again in ("", ":")
]
AWAY = ("/", "//127.0.0.9:1/v1", "/v1/chat/completions", "file:///etc/passwd", "http://[::1")
ERRORS = ((400, ""), (429, "1000000000"), (429, "-1"), (429, "soon"), (500, ""))
SENT = {
    "line-without-end": Sent(_long("line"), TOO_LARGE),
    "text-without-end": Sent(_long("text"), TOO_LARGE),
    "reasoning-without-end": Sent(_long("reasoning"), TOO_LARGE),
    "one-part-of-100-mb": Sent(_long("one part"), TOO_LARGE),
    "one-piece-of-100-mb": Sent(_long("one piece"), TOO_LARGE, "ask-whole"),
    "tool-call-of-100-mb": Sent(_long("tool call"), TOO_LARGE, tools=[LOOK]),
    "heads-without-end": Sent(_long("header", "headers", "status", "chunk size"), REFUSED),
    **{
        f"bomb-of-{encoding}": Sent([{"send": "packed", "encoding": encoding}], REFUSED)
        for encoding in ("gzip", "deflate", "br")
    },
    "chunks-of-one-byte": Sent([{"send": "in_bytes"}], DONE),
    "closed-at-odd-places": Sent(CLOSED, REFUSED),
    "nested-100000-deep": Sent(_long("nested part"), REFUSED),
    "nested-100000-deep-in-one-piece": Sent(_long("nested piece"), REFUSED, "ask-whole"),
    "a-byte-each-ten-seconds": Sent(SLOW, ("STEP_TIMEOUT", "PROVIDER_UNAVAILABLE"), "ask-briefly"),
    "redirects": Sent(
        [{"send": "redirect", "to": to, "status": status} for to in AWAY for status in (301, 302, 307, 308)],
        BROKEN,
    ),
    "errors-of-100-mb": Sent(
        [{"send": "error", "status": status, "retry_after": after} for status, after in ERRORS], REFUSED
    ),
}
FAMILY.each("nobody", _runs, SENT, prepare=warm, limit_s=LIMIT_S)
LINES = {
    "comments": Sent(_long("comments"), TOO_LARGE),
    "empty-lines": Sent(_long("empty lines"), (*TOO_LARGE, *DONE)),
}
FAMILY.each("nobody", _runs, LINES, prepare=warm, limit_s=LINES_LIMIT_S)
BRIEFLY = {"RUNGLASS_ANSWER_IDLE_LIMIT_S": "1"}
PAUSED = {"pause-without-end": Sent([{"send": "slow", "begun": "part"}], ("PROVIDER_UNAVAILABLE",))}
FAMILY.each("nobody", _runs, PAUSED, prepare=warm, limit_s=LIMIT_S, settings=BRIEFLY)


async def _streamed(field: Field, per_s: float) -> None:
    """100 streaming calls of one key."""
    body = {"message": json.dumps({"send": "parts", "per_s": per_s}), "runRemaining": True}
    data = json.dumps(body).encode()
    length = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    headers = [*field.headers("bank-run"), *length]
    request = head("POST", f"{API}/seq/{BANK}/ask/step", host="x", headers=headers) + data

    async def one(number: int) -> None:
        # A hundred calls at once would be an attack of another kind.
        await asyncio.sleep(number * STREAM_APART_S)
        (connection,) = await field.connect(1)
        await connection.send(request)
        with suppress(TimeoutError):
            async with asyncio.timeout(STREAM_S):
                status, _ = await connection.answer_head()
                field.tally[status] += 1
                while await connection.chunk():
                    pass
                field.complain(f"a stream was answered {status}, and has an end")

    await field.together(100, one)


STREAMS = {"hundred-streams": 20.0, "hundred-fast-streams": 0.0}
OF_STREAMS = {"limit_s": LIMIT_S, "floor_ms": STREAM_FLOOR_MS, "leaves_work": True}
FAMILY.each("nobody", _streamed, STREAMS, prepare=warm, **OF_STREAMS)


async def _asked_once(field: Field) -> None:
    if (times := len(await field.hostile.asked())) != 1:
        field.complain(f"the provider was asked {times} times")


OF_TWO = {"prepare": warm, "judge": _asked_once, "only_on": "postgres", "has_second": True}


@FAMILY.attack("run", limit_s=LIMIT_S, leaves_work=True, **OF_TWO)
async def one_job_and_two_servers(field: Field) -> None:
    """One job whose answer does not end, to two servers on one store: asked once, and others' runs stay."""
    field.complain("the job did not come to its end")
    held = await field.together(4, lambda _: field.job("hold", role="run"))
    end = await _ended(field, await _start(field, _long("line")[0]))
    field.complaints.clear()
    if end not in TOO_LARGE:
        field.complain(f"ends with {end}")
    for run_id in held:
        trace = (await field.call("GET", f"/flow-runs/{run_id}/trace", role="read")).json()
        attempts = [step.get("attempt", 1) for step in trace.get("steps", [])]
        status = trace.get("flowRun", {}).get("status")
        if status != "running" or attempts != [1]:
            field.complain(f"a run of another project's is {status}, in attempts {attempts}")


MONEY = Family("money")

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


MONEY.each("run", _spent, FLOWS, leaves_work=True, prepare=warm, judge=_within_bounds)


@MONEY.attack("run", leaves_work=True, prepare=warm)
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

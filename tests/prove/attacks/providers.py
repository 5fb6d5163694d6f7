"""What a model's provider sends that is to fill memory, stop the loop, or spoil the books.

Every attack is some runs in a project with a budget, whose provider sends what they name
(`attacking/hostile_provider.py`). Each run must come to an end that the attack allows, whose call is on the
books, and must be readable and deletable afterwards; and the provider is asked no more often than that.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import API, Field
from tests.prove.attacking.hostile_provider import Asked
from tests.prove.attacking.http import head
from tests.prove.attacking.places import BANK
from tests.prove.attacking.seed import HOSTED, spent_usd

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
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

Send = dict[str, Any]


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


async def _warm(field: Field, *flows: str) -> None:
    """The first call of a model makes the server load the provider's library, which is no attack."""
    for flow in flows or ("ask", "ask-whole"):
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


def _astray(asked: Sequence[Asked]) -> list[str]:
    """Requests that went elsewhere than the provider's address leads to."""
    return [
        f"{each.method} {each.host}{each.path}{' with the key' if each.has_key else ''}"
        for each in asked
        if each.method != "POST" or not each.host.startswith("127.0.0.1:") or not each.path.startswith("/v1")
    ]


def _attack(
    name: str,
    about: str,
    *sends: Send,
    ends: Sequence[str],
    flow: str = "ask",
    tools: Sequence[Any] = (),
    settings: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
) -> None:
    """Adds an attack: a run for each of `sends`, all at once, with these tools.

    A run that ends as if the provider had worked for it is charged, and one with too much is not tried again.
    """
    most_asked = 1 if ends == TOO_LARGE else MOST_ASKED
    is_charged = not {"completed", "PROVIDER_ERROR"} & set(ends)

    async def strike(field: Field) -> None:
        field.complain("the runs did not come to their end")
        spent = await spent_usd(field.settings, BANK)
        runs = await field.together(len(sends), lambda number: _start(field, sends[number], flow, tools))
        found = await field.together(len(runs), lambda number: _ended(field, runs[number]))
        field.complaints.clear()
        for end, send in zip(found, sends, strict=True):
            if end not in ends:
                field.complain(f"ends with {end}: {json.dumps(send)}"[:150])
        asked = await field.hostile.asked()
        if astray := _astray(asked):
            field.complain(f"asked {astray[0]}")
        often, sent = Counter(each.message for each in asked), Counter(map(json.dumps, sends))
        if over := [message for message, runs in sent.items() if often[message] > most_asked * runs]:
            field.complain(f"the provider was asked {often[over[0]]} times: {over[0]}")
        await _readable(field, runs)
        await _books(field, runs, spent, len(asked), is_charged=is_charged)
        await _gone(field, runs)

    FAMILY.add(name, about, strike, role="nobody", prepare=_warm, limit_s=limit_s, settings=settings or {})


for _name, _about, _what in (
    ("line-without-end", "One line that does not end.", "line"),
    ("text-without-end", "Parts of text without end.", "text"),
    ("reasoning-without-end", "Parts of reasoning without end.", "reasoning"),
    ("one-part-of-100-mb", "An answer of 100 MB in one part of a stream.", "one part"),
):
    _attack(_name, _about, {"send": "long", "what": _what}, ends=TOO_LARGE)
_attack(
    "one-piece-of-100-mb",
    "An answer of 100 MB in one piece.",
    {"send": "long", "what": "one piece"},
    flow="ask-whole",
    ends=TOO_LARGE,
)
_attack(
    "tool-call-of-100-mb",
    "A tool call with 100 MB of arguments, a kilobyte each time.",
    {"send": "long", "what": "tool call"},
    ends=TOO_LARGE,
    tools=[LOOK],
)
_attack(
    "comments",
    "10 million comments, and then an answer.",
    {"send": "long", "what": "comments"},
    ends=TOO_LARGE,
    limit_s=LINES_LIMIT_S,
)
_attack(
    "empty-lines",
    "10 million empty lines, and then an answer.",
    {"send": "long", "what": "empty lines"},
    ends=(*TOO_LARGE, *DONE),
    limit_s=LINES_LIMIT_S,
)
_attack(
    "heads-without-end",
    "A header, headers, a status line and the size of a chunk that do not end.",
    *[{"send": "long", "what": what} for what in ("header", "headers", "status", "chunk size")],
    ends=REFUSED,
)
for _encoding in ("gzip", "deflate", "br"):
    _attack(
        f"bomb-of-{_encoding}",
        f"An answer of a GB as {_encoding}, though none was asked for.",
        {"send": "packed", "encoding": _encoding},
        ends=REFUSED,
    )
_attack("chunks-of-one-byte", "An answer in chunks of one byte.", {"send": "in_bytes"}, ends=DONE)
_attack(
    "closed-at-odd-places",
    "The connection is closed in the head, a chunk's size, a letter, and before the end.",
    *[{"send": "closed", "after": after} for after in (0, 1, 12, 40, 104, 106, 180, 220, 224, 350)],
    ends=REFUSED,
)
_attack(
    "nested-100000-deep",
    "Values in values, in a part of a stream.",
    {"send": "long", "what": "nested part"},
    ends=REFUSED,
)
_attack(
    "nested-100000-deep-in-one-piece",
    "Values in values.",
    {"send": "long", "what": "nested piece"},
    flow="ask-whole",
    ends=REFUSED,
)
_attack(
    "a-byte-each-ten-seconds",
    "Silence, and a byte each ten seconds: before the head, after it, and after a part.",
    *[
        {"send": "slow", "begun": begun, "again": again}
        for begun in ("", "head", "part")
        for again in ("", ":")
    ],
    flow="ask-briefly",
    ends=("STEP_TIMEOUT", "PROVIDER_UNAVAILABLE"),
)
_attack(
    "idle",
    "An answer that stops in the middle, where an answer may be idle for a second.",
    {"send": "slow", "begun": "part"},
    ends=("PROVIDER_UNAVAILABLE",),
    settings={"RUNGLASS_ANSWER_IDLE_LIMIT_S": "1"},
)
_attack(
    "redirects",
    "Redirects to another path, another host, and to itself.",
    *[
        {"send": "redirect", "to": to, "status": status}
        for to in ("/", "//127.0.0.9:1/v1", "/v1/chat/completions", "file:///etc/passwd", "http://[::1")
        for status in (301, 302, 307, 308)
    ],
    ends=BROKEN,
)
_attack(
    "errors-of-100-mb",
    "Errors of 100 MB: 400, 429 and 500, with odd times to wait.",
    *[
        {"send": "error", "status": status, "retry_after": after}
        for status, after in ((400, ""), (429, "1000000000"), (429, "-1"), (429, "soon"), (500, ""))
    ],
    ends=REFUSED,
)

NUMBERS = {
    "minus-one": -1,
    "half": 0.5,
    "1e308": 1e308,
    "2-to-the-63": 2**63,
    "10-to-the-12": 10**12,
    "true": True,
    "null": None,
    "text": "many",
}


def _usages(value: Any) -> list[dict[str, Any]]:
    """Each number of a provider as that."""
    inner = (("prompt_tokens_details", "cached_tokens"), ("completion_tokens_details", "reasoning_tokens"))
    return [
        *({name: value} for name in ("prompt_tokens", "completion_tokens", "total_tokens")),
        *({outer: {name: value}} for outer, name in inner),
        {"prompt_tokens_details": value},
        {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 10**6}},
    ]


for _name, _value in NUMBERS.items():
    _attack(
        f"usage-of-{_name}",
        f"Each number of the usage as {json.dumps(_value)}, streamed.",
        *[{"send": "answer", "usage": usage} for usage in _usages(_value)],
        ends=(*DONE, *BROKEN),
    )
_attack(
    "usage-in-one-piece",
    "Each number of the usage as each of them.",
    *[{"send": "answer", "usage": usage} for value in NUMBERS.values() for usage in _usages(value)],
    flow="ask-whole",
    ends=(*DONE, *BROKEN),
)

CHOICES: tuple[Any, ...] = ([], None, {}, "none", [None], [{}])
TIMES: tuple[Any, ...] = ("yesterday", -1, 10**18, None, 0.5)
NAMES: tuple[Any, ...] = (None, 1, {})
CONTENTS: tuple[Any, ...] = (1, {}, [None], "\0", "\ud800")
CALLS: tuple[Any, ...] = (
    [{"index": 0, "id": "t", "type": "function", "function": {"name": "delete_all", "arguments": "{}"}}],
    [{"index": -1, "id": "", "type": "function", "function": {"name": "", "arguments": ""}}],
    [{"index": 0, "id": None, "type": "odd", "function": None}],
    [{"index": 0, "id": "t", "type": "function", "function": {"name": "look", "arguments": "[" * 9999}}],
    "none",
)
ODD: list[Send] = [
    *({"chunk": {"choices": each}} for each in CHOICES),
    *({"chunk": {"created": each}} for each in TIMES),
    *({"chunk": {"id": each, "model": each}} for each in NAMES),
    *({"delta": {"content": each}} for each in CONTENTS),
    *({"delta": {"content": None, "tool_calls": each}} for each in CALLS),
    {"delta": {"role": "nobody"}},
]
for _flow in ("ask", "ask-whole"):
    _attack(
        "odd-answers" if _flow == "ask" else "odd-answers-in-one-piece",
        "No choices, a tool call that nobody offered, odd times, texts and ids.",
        *[{"send": "answer", **odd} for odd in ODD],
        flow=_flow,
        ends=(*DONE, *REFUSED, "INVALID_OUTPUT"),
    )


def _of_library(model: str) -> None:
    provider = model.partition(":")[0]
    flow = f"ask-{provider}"

    async def strike(field: Field) -> None:
        field.complain("the run did not come to its end")
        run = await _start(field, {"send": "long", "what": "line"}, flow)
        end = await _ended(field, run)
        field.complaints.clear()
        if end not in TOO_LARGE:
            field.complain(f"ends with {end}")
        if len(await field.hostile.asked()) != 1:
            field.complain("the provider was not asked once")
        await _readable(field, [run])
        await _gone(field, [run])

    FAMILY.add(
        f"line-without-end-to-{provider}",
        f"One line that does not end, to the library of {provider}.",
        strike,
        role="nobody",
        prepare=lambda field: _warm(field, flow),
        limit_s=LIMIT_S,
    )


for _model in HOSTED:
    _of_library(_model)


def _streams(name: str, about: str, per_s: float) -> None:
    async def strike(field: Field) -> None:
        body = {"message": json.dumps({"send": "parts", "per_s": per_s}), "runRemaining": True}
        target = f"{API}/seq/{BANK}/ask/step"

        async def one(number: int) -> None:
            # A hundred calls at once would be an attack of another kind.
            await asyncio.sleep(number * STREAM_APART_S)
            (connection,) = await field.connect(1)
            data = json.dumps(body).encode()
            length = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
            headers = [*field.headers("bank-run"), *length]
            await connection.send(head("POST", target, host=connection.host, headers=headers) + data)
            with suppress(TimeoutError):
                async with asyncio.timeout(STREAM_S):
                    status, _ = await connection.answer_head()
                    field.tally[status] += 1
                    while await connection.chunk():
                        pass
                    field.complain(f"a stream was answered {status}, and has an end")

        await field.together(100, one)

    FAMILY.add(
        name,
        about,
        strike,
        role="nobody",
        prepare=_warm,
        limit_s=LIMIT_S,
        floor_ms=STREAM_FLOOR_MS,
        leaves_work=True,
    )


_streams("hundred-streams", "100 ordinary streaming calls of one key, 20 parts a second each.", 20.0)
_streams("hundred-fast-streams", "100 streaming calls of one key, as fast as they go.", 0.0)


async def _two_servers(field: Field) -> None:
    """One job whose answer does not end, to two servers on one store: asked once, and others' runs stay."""
    field.complain("the job did not come to its end")
    held = await field.together(4, lambda _: field.execute("hold", way="jobs", role="run"))
    run = await _start(field, {"send": "long", "what": "line"})
    end = await _ended(field, run)
    field.complaints.clear()
    if end not in TOO_LARGE:
        field.complain(f"ends with {end}")
    for answer in held:
        target = f"/flow-runs/{answer.json().get('executionId')}/trace"
        trace = (await field.call("GET", target, role="read")).json()
        attempts = [step.get("attempt", 1) for step in trace.get("steps", [])]
        status = trace.get("flowRun", {}).get("status")
        if status != "running" or attempts != [1]:
            field.complain(f"a run of another project's is {status}, in attempts {attempts}")


async def _asked_once(field: Field) -> None:
    if (times := len(await field.hostile.asked())) != 1:
        field.complain(f"the provider was asked {times} times")


FAMILY.add(
    "one-job-and-two-servers",
    (_two_servers.__doc__ or "").strip(),
    _two_servers,
    role="run",
    prepare=_warm,
    limit_s=LIMIT_S,
    leaves_work=True,
    judge=_asked_once,
    only_on="postgres",
    has_second=True,
)

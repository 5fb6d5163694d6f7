"""Compares what runs tell with the ledger of the model server.

A case is right where the totals of its runs equal the usage that the model server told, to the token, and
where each call without told usage is unmetered. Exceptions are in `shortfalls.toml`, each with its reason,
and they hold exactly: a listed shortfall that is gone is as wrong as one that is not listed.
"""

import json
import tomllib
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import astuple

from tests.emitters.answers import CITIES, TEXT
from tests.emitters.ledger import Call, Usage
from tests.emitters.readback import Told

FILE = Path(__file__).with_name("shortfalls.toml")
SESSIONS = {"first-session", "second-session"}
ANSWER = "".join(TEXT)


class Shortfall(NamedTuple):
    """What the runs of a case lack; `shortfalls.toml` says what the fields mean."""

    row: str
    case: str
    reason: str
    untold: int = 0
    unsent: int = 0
    twice: int = 0
    estimated: int = 0
    input: int = 0
    output: int = 0
    cached: bool = False
    cache_write: bool = False
    reasoning: bool = False
    session: bool = False
    tools: bool = False
    refused: int = 0


def shortfalls() -> dict[tuple[str, str], Shortfall]:
    """What is known to be missing, by row and case."""
    entries: list[dict[str, Any]] = tomllib.loads(FILE.read_text("utf-8"))["shortfall"]
    found: dict[tuple[str, str], Shortfall] = {}
    for entry in entries:
        rows, cases = entry.pop("rows"), entry.pop("cases")
        for row in rows:
            for case in cases:
                known = found.get((row, case))
                if known is None:
                    found[row, case] = Shortfall(row, case, **entry)
                else:
                    reason = f"{known.reason} {entry['reason']}"
                    found[row, case] = known._replace(**entry | {"reason": reason})
    return found


def compare(
    case: str, calls: list[Call], refused: list[str], told: Told, known: Shortfall | None
) -> list[str]:
    """What is not as the ledger and the known shortfall say; nothing where all is.

    `refused` are the answers to requests of which something was refused.
    """
    short = known or Shortfall("", case, "")
    answered = [call for call in calls if call.status == 200]
    all_told = _sum(call.told for call in answered if call.told is not None)
    wrong = list(refused) if len(refused) != short.refused else []

    # Each call has its own numbers of tokens: which of them are missing follows from the sums.
    possible = []
    for unsent in combinations(answered, short.unsent):
        sent = [call for call in answered if call not in unsent]
        metered = [call.told for call in sent if call.told is not None]
        for counted in combinations(metered, len(metered) - short.untold):
            for twice in combinations(counted, short.twice):
                usage, unmetered = _sum(counted + twice), len(sent) - len(counted) - short.estimated
                possible.append((usage.input - short.input, usage.output - short.output, unmetered))
    # A call that failed may have a span of its own, which tells no usage; one that a client repeats has none.
    failed = len(calls) - len(answered)
    if not any(
        (told.usage.input, told.usage.output) == (input_, output)
        and 0 <= told.unmetered - unmetered <= failed
        for input_, output, unmetered in possible
    ):
        wrong.append(
            f"{told.usage.input} + {told.usage.output} tokens and {told.unmetered} unmetered calls, "
            + "not "
            + " or ".join(f"{i} + {o} and {u}" for i, o, u in possible)
        )
    for kind in ("cached", "cache_write", "reasoning"):
        number = 0 if getattr(short, kind) else getattr(all_told, kind)
        if not (short.unsent or short.untold) and getattr(told.usage, kind) != number:
            wrong.append(f"{getattr(told.usage, kind)} tokens are {kind}, not {number}")
    if case == "sessions" and (told.sessions >= SESSIONS) is short.session:
        wrong.append(f"the sessions are {sorted(told.sessions)}")
    if answers := told.sessions & {call.id for call in calls}:
        wrong.append(f"the ids of answers are sessions: {sorted(answers)}")
    if case == "chat" and not any(ANSWER in json.dumps(answer) for answer in told.answers):
        wrong.append("the answer is not in the trace")
    if case == "tools" and any(_cities(answer) == CITIES for answer in told.answers) is short.tools:
        wrong.append(f"the two calls of the tool are{'' if short.tools else ' not'} in the answer")
    if case == "error_retry" and not told.failed:
        wrong.append("no call has failed")
    return wrong


def _cities(answer: dict[str, Any]) -> list[str]:
    functions = [each["function"] for each in answer.get("toolCalls", ())]
    return [json.loads(each["arguments"]).get("city") for each in functions if each["name"] == "weather"]


def _sum(usages: Iterable[Usage]) -> Usage:
    return Usage(*map(sum, zip((0, 0, 0, 0, 0), *map(astuple, usages), strict=True)))

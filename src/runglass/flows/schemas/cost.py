"""How much work a JSON Schema can make for a validator, told from the schema alone.

A validator applies each part of a schema, its references written out, at most once to each part of a value.
So their product bounds the work, as long as no reference leads back to itself: then the parts double at each
level of a value, and 550 bytes can ask for 2**40 steps. The cost of a schema that is not proved here is only
unknown.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema_rs

MAX_WALKED = 20_000
"""The most parts that a proof walks, in some 10 ms. A larger schema is not proved."""

NUMBER_WEIGHT = 50
"""Comparing with an integer of thousands of digits takes this much longer than another test."""
DIVISION_WEIGHT = 200
FRACTION_WEIGHT = 1000
"""The weights of a division by a whole number and by a fraction: exact, 1e300 by 1e-300 takes 33 µs."""

_PATTERN_BYTES = 1 << 20
_UNPROVED = frozenset(
    # These keywords look at a value once more for each of their neighbours, or find their target while they
    # run.
    {"$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties"}
)
_COMPARING = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_REPEATED = re.compile(r"\{(\d*)(?:,(\d*))?\}")
_VERBOSE = re.compile(r"\(\?[a-zA-Z-]*x")
"""In verbose patterns spaces and comments may stand inside of repetitions, which `_REPEATED` does not see."""
_PROPERTY = re.compile(r"\\[pP]")
_WIDE = re.compile(r"[^\0-\x7f]|\\[pPuUx]")
_PROPERTY_WEIGHT = 150
"""A class like `\\pL` compiles to a machine of 75 kB, in a quarter of a millisecond."""
_MOST_REPEATED = 1_000_000
_LONGEST_NUMBER = 6


class Cost(NamedTuple):
    """`parts` of the schema with all references written out, of which `rules` can each find mistakes.

    `patterns` is the length of all regular expressions as a machine runs them. `references` counts those that
    a value meets at most, one that leads back to itself once. `uniques` are lists whose items may have to be
    compared each with each: the validator's hashes of different items can be alike, as those of all integers
    near 2**63 are. `proved`: the other numbers are bounds.
    """

    parts: int = 0
    rules: int = 0
    patterns: int = 0
    references: int = 0
    uniques: int = 0
    proved: bool = True

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(
            self.parts + other.parts,
            self.rules + other.rules,
            self.patterns + other.patterns,
            self.references + other.references,
            self.uniques + other.uniques,
            self.proved and other.proved,
        )


def target(schema: Any, reference: str) -> Any:
    """The part of the schema that a reference to a location in the same schema means.

    Raises LookupError for any other reference, and for a location that a validator may find elsewhere: one
    that is spelled with `%`, or lies in a part with an `$id`, which is the root of the references in it.
    """
    found: Any = schema
    if reference == "#":
        return found
    if not reference.startswith("#/") or "%" in reference:
        raise LookupError(reference)
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal():
            found = found[int(key)]
        elif isinstance(found, dict) and (found is schema or not _has_id(found)):
            found = found[key]
        else:
            raise LookupError(reference)
    return found


def _has_id(part: dict[str, Any]) -> bool:
    # Drafts before the sixth write `id`.
    return any(isinstance(part.get(name), str) for name in ("$id", "id"))


def cost_of(schema: Any) -> Cost:
    """The cost of the schema, in time linear in its size."""
    own: dict[str, Cost] = {}
    within: dict[str, list[str]] = {}
    total: dict[str, Cost] = {}
    pending, room = ["#"], MAX_WALKED
    while pending:
        name = pending[-1]
        if name not in own:
            own[name], within[name], walked = _cost_of_part(schema, name, room)
            room -= walked
            pending += [inner for inner in within[name] if inner not in own]
            continue
        pending.pop()
        if name not in total:
            cost = own[name]
            for inner in within[name]:
                # A part without a total is being added up at this moment, so the reference leads back to
                # itself.
                cost += total.get(inner, Cost(proved=False)) + Cost(references=1)
            total[name] = cost
    return total["#"]


def _cost_of_part(schema: Any, name: str, room: int) -> tuple[Cost, list[str], int]:
    """The cost of one part without the targets of its references; the references; the parts walked."""
    try:
        start = target(schema, name)
    except LookupError:
        return Cost(proved=False), [], 0
    walked = parts = rules = patterns = uniques = 0
    proved = True
    references: list[str] = []
    pending: list[tuple[str, Any]] = [("", start)]
    while pending:
        key, part = pending.pop()
        walked += 1
        parts += 1
        if walked > room:
            return Cost(proved=False), references, walked
        if isinstance(part, dict):
            rules += len(part)
            # An `$id` gives the references below it another root.
            is_moved = part is not schema and _has_id(part)
            if is_moved or _UNPROVED & part.keys() or part.get("format") == "regex":
                proved = False
            parts += NUMBER_WEIGHT * len(_COMPARING & part.keys())
            if "multipleOf" in part:
                parts += DIVISION_WEIGHT if isinstance(part["multipleOf"], int) else FRACTION_WEIGHT
            patterns += sum(map(pattern_weight, _patterns(part)))
            uniques += part.get("uniqueItems") is True
            reference = part.get("$ref")
            if isinstance(reference, str):
                references.append(reference)
            # The root's definitions do not count until a reference leads to them.
            left_out = ("$defs", "definitions") if part is schema else ()
            pending += [(inner, value) for inner, value in part.items() if inner not in left_out]
        elif isinstance(part, list):
            rules += len(part) if key != "enum" else 0
            pending += [(key, value) for value in part]
    return Cost(parts, rules, patterns, 0, uniques, proved), references, walked


def _patterns(part: dict[str, Any]) -> Iterator[str]:
    if isinstance(pattern := part.get("pattern"), str):
        yield pattern
    if isinstance(named := part.get("patternProperties"), dict):
        yield from named


def pattern_weight(pattern: str) -> int:
    """The length of a pattern with its repetitions written out, at least."""
    if _VERBOSE.search(pattern):
        return _MOST_REPEATED
    is_wide = _WIDE.search(pattern) is not None
    length = len(pattern) + 1 + _PROPERTY_WEIGHT * len(_PROPERTY.findall(pattern))
    factor = 1
    for repeated in _REPEATED.finditer(pattern):
        if max(map(len, repeated.groups(""))) > _LONGEST_NUMBER:
            return _MOST_REPEATED
        times = max(int(number or 0) for number in repeated.groups(""))
        before = pattern[repeated.start() - 1]
        # A repetition of a group, or of another repetition, repeats all parts of it; and a class with letters
        # beyond ASCII is a machine of many parts itself.
        if is_wide or before in ")}?*+":
            factor = min(factor * max(times, 1), _MOST_REPEATED)
        else:
            length += times
    return length * factor


def is_linear(pattern: str) -> bool:
    """Whether a pattern can be matched without going back, in time linear in the text."""
    options = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES)
    try:
        jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=options, offline=True)
    except ValueError:
        return False
    return True


def patterns_in(schema: Any) -> Iterator[str]:
    """Every regular expression in a schema."""
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            yield from _patterns(part)
            pending += part.values()
        elif isinstance(part, list):
            pending += part

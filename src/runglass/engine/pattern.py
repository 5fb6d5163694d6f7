"""Short strings that a regular expression matches, as far as that can be told from its shape.

Used to invent example values for JSON Schemas. Knows no schema; reads the expression with Python's own
parser, whose dialect is close to the one of JSON Schema, and checks each find.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

# Python has no public way to look into an expression: the one it had, `sre_parse`, warns and will go.
parser: Any = import_module("re._parser")
op: Any = import_module("re._constants")

_FILLER = "a"
_OF_CATEGORY = {
    op.CATEGORY_DIGIT: "0",
    op.CATEGORY_NOT_DIGIT: "a",
    op.CATEGORY_WORD: "a",
    op.CATEGORY_NOT_WORD: "-",
    op.CATEGORY_SPACE: " ",
    op.CATEGORY_NOT_SPACE: "a",
}
_TRIED = "a0 -A_." + "".join(map(chr, range(33, 127)))


def shortest_match(pattern: str, *, shortest: int = 0, longest: int | None = None) -> str | None:
    """A string of `shortest` to `longest` characters in which `pattern` is found; None if none was made."""
    try:
        searched = re.compile(pattern)
        tree = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        return None
    for candidate in _candidates(tree, shortest):
        if (
            len(candidate) >= shortest
            and (longest is None or len(candidate) <= longest)
            and searched.search(candidate)
        ):
            return candidate
    return None


def _candidates(tree: Any, shortest: int) -> Iterator[str]:
    for repeats in sorted({*range(min(shortest, 16) + 1), shortest}):
        text = _write(tree, repeats, {})
        if text is None:
            return
        yield text
        # Where the expression is not anchored at its end, anything may follow.
        yield text.ljust(shortest, _FILLER)


def _write(tree: Any, repeats: int, groups: dict[int, str]) -> str | None:
    parts: list[str] = []
    for operation, argument in tree:
        part = _write_one(operation, argument, repeats, groups)
        if part is None:
            return None
        parts.append(part)
    return "".join(parts)


def _write_one(operation: Any, argument: Any, repeats: int, groups: dict[int, str]) -> str | None:
    if operation is op.LITERAL:
        return chr(argument)
    if operation is op.NOT_LITERAL:
        return next(char for char in _TRIED if ord(char) != argument)
    if operation is op.ANY:
        return _FILLER
    if operation is op.IN:
        return _one_of(argument)
    if operation is op.BRANCH:
        written = [text for branch in argument[1] if (text := _write(branch, repeats, groups)) is not None]
        return min(written, key=len, default=None)
    if operation is op.SUBPATTERN:
        text = _write(argument[3], repeats, groups)
        if text is not None and argument[0] is not None:
            groups[argument[0]] = text
        return text
    if operation is op.GROUPREF:
        return groups.get(argument)
    if operation in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        fewest, most, repeated = argument
        count = min(max(fewest, repeats), most)
        once = _write(repeated, repeats, groups) if count else ""
        return None if once is None or count * len(once) > 10_000 else once * count
    if operation is op.ATOMIC_GROUP:
        return _write(argument, repeats, groups)
    if operation in (op.AT, op.ASSERT, op.ASSERT_NOT):
        return ""
    return None


def _one_of(choices: Any) -> str | None:
    """One character of a set; `choices` starts with a NEGATE marker where the set lists what is forbidden."""
    negated = choices[0][0] is op.NEGATE
    allowed = [_first_of(*choice) for choice in choices if choice[0] is not op.NEGATE]
    if not negated:
        return next((char for char in allowed if char is not None), None)
    return next((char for char in _TRIED if not any(_holds(char, *choice) for choice in choices[1:])), None)


def _first_of(operation: Any, argument: Any) -> str | None:
    if operation is op.LITERAL:
        return chr(argument)
    if operation is op.RANGE:
        return chr(argument[0])
    return _OF_CATEGORY.get(argument)


def _holds(char: str, operation: Any, argument: Any) -> bool:
    if operation is op.LITERAL:
        return bool(ord(char) == argument)
    if operation is op.RANGE:
        return bool(argument[0] <= ord(char) <= argument[1])
    if argument in (op.CATEGORY_DIGIT, op.CATEGORY_NOT_DIGIT):
        return char.isdigit() is (argument is op.CATEGORY_DIGIT)
    if argument in (op.CATEGORY_SPACE, op.CATEGORY_NOT_SPACE):
        return char.isspace() is (argument is op.CATEGORY_SPACE)
    return (char.isalnum() or char == "_") is (argument is op.CATEGORY_WORD)

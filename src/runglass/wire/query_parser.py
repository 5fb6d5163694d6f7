"""Reads the query language of the list of runs: `status:failed -flow:grade-3 duration:>3s "no refund"`.

Text in, `RunQuery` out, or an error that says where the text is wrong and what is possible. The language is
described in `docs/queries.md`. Knows nothing of HTTP and of stores: names of flows are not looked up here.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, NoReturn, get_args

from runglass.errors import APIError, api_error
from runglass.log.fold import session_id_of
from runglass.log.trace import RunStatus
from runglass.support.clock import LAST_MS
from runglass.support.safe_text import is_whole, suggestion
from runglass.wire.query import Field, Range, RunQuery, Term

MOST_CHARS = 2000
MOST_TERMS = 30
MOST_VALUES = 50
"""The most values of one term."""

TRIGGERS = ("api", "job", "step", "schedule", "replay", "recorded", "plain")
KINDS = ("executed", "recorded", "plain")

_FIELD = re.compile(r"([A-Za-z_][A-Za-z_0-9-]*):")
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LISTED, _WORD = re.compile(r"[^\s,]*"), re.compile(r"\S*")
_NUMBER = r"(\d{1,15}(?:\.\d{1,15})?)([a-z]*)"
_COMPARED = re.compile(rf"(>=|<=|>|<|)\s*{_NUMBER}")
_BETWEEN = re.compile(rf"{_NUMBER}\.\.{_NUMBER}")
_AGE = re.compile(r"(\d{1,9})([a-z])")

_DURATIONS = {"ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}
_AGES_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_COUNTS = {"": 1.0, "k": 1000.0, "m": 1_000_000.0}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Token(NamedTuple):
    """A term as it was typed. `name` is None for a word without a field."""

    position: int
    source: str
    negated: bool
    name: str | None
    values: tuple[str, ...]


def parse_run_query(text: str, *, now: datetime) -> RunQuery:
    """The query that the text asks for; ages such as `24h` count back from `now`.

    Terms of `flow` have the slugs or ids as they were typed. Raises INVALID_REQUEST, whose details have the
    `term` and its `position`.
    """
    if len(text) > MOST_CHARS:
        raise api_error("INVALID_REQUEST", f"the query has more than {MOST_CHARS:,} characters")
    if not is_whole(text):
        raise api_error("INVALID_REQUEST", "the query holds half a surrogate pair, which is no character")
    terms: list[Term] = []
    for token in _tokens(text):
        if len(terms) == MOST_TERMS:
            _refuse(token, f"a query has at most {MOST_TERMS} terms")
        terms.append(_term(token, now))
    return RunQuery(tuple(terms))


def query_error(position: int, source: str, problem: str) -> APIError:
    """What is wrong with the term that begins at that position."""
    message = f"query, character {position + 1}: `{source:.100}`: {problem}"
    return api_error("INVALID_REQUEST", message, details={"position": position, "term": source})


def _refuse(token: _Token, problem: str) -> NoReturn:
    raise query_error(token.position, token.source, problem)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        start = at
        negated = text[at] == "-"
        at += negated
        named = _FIELD.match(text, at)
        name = named[1] if named else None
        has_list = name is not None and name.lower() != "text"
        values, at = _values(text, start, at if named is None else named.end(), has_list=has_list)
        token = _Token(start, text[start:at], negated, name, tuple(values))
        if "" in values:
            _refuse(token, "a value is missing" if name else "there is nothing to search for")
        if len(values) > MOST_VALUES:
            _refuse(token, f"a term has at most {MOST_VALUES} values")
        yield token


def _values(text: str, start: int, at: int, *, has_list: bool) -> tuple[list[str], int]:
    """The values from `at` on, which commas separate in a list, and where they end."""
    values: list[str] = []
    while True:
        is_quoted = text.startswith('"', at)
        found = (_QUOTED if is_quoted else _LISTED if has_list else _WORD).match(text, at)
        if found is None:
            raise query_error(start, text[start:], 'a quote is not closed; end it with "')
        values.append(_ESCAPED.sub(r"\1", found[1]) if is_quoted else found[0])
        at = found.end()
        if at == len(text) or text[at].isspace():
            return values, at
        if not has_list or text[at] != ",":
            raise query_error(start, text[start : at + 1], "after a quoted value comes a space or a comma")
        at += 1


def _term(token: _Token, now: datetime) -> Term:
    if token.name is None:
        if token.source.lower() == "or":
            _refuse(
                token,
                "there is no `or`: a run must match all terms; write several values of a field as flow:a,b,"
                ' or put "or" in quotes to search for the word',
            )
        return _with(token, "text", words=token.values)
    read = _FIELDS.get(token.name.lower())
    if read is None:
        known = ", ".join(_FIELDS)
        hint = suggestion(token.name.lower(), _FIELDS)
        advice = f"{hint} Fields" if hint else '; put "…" around it to search for it as text; fields'
        _refuse(token, f"unknown field {token.name!r}{advice} are {known}")
    return read(token, now)


def _with(
    token: _Token, field: Field, *, words: tuple[str, ...] = (), ranges: tuple[Range, ...] = ()
) -> Term:
    return Term(field, words, ranges, token.negated, token.source, token.position)


def _one_of(field: Field, known: tuple[str, ...]) -> Callable[[_Token, datetime], Term]:
    def read(token: _Token, now: datetime) -> Term:
        words = tuple(value.lower() for value in token.values)
        for word in words:
            if word not in known:
                hint = suggestion(word, known)
                _refuse(token, f"{word!r:.100} is no {field}; there are {', '.join(known)}{hint}")
        return _with(token, field, words=words)

    return read


def _any_word(field: Field, read: Callable[[str], str] = str) -> Callable[[_Token, datetime], Term]:
    return lambda token, now: _with(token, field, words=tuple(map(read, token.values)))


def _numbers(
    field: Field, units: dict[str, float], like: str, *, plain: Callable[[str], str] = str.lower
) -> Callable[[_Token, datetime], Term]:
    """Reads numbers with one of these units; `like` are examples, `plain` takes out what else is typed."""

    def number(token: _Token, digits: str, unit: str) -> float:
        if unit not in units:
            has = f"has no unit {unit!r}" if unit else "needs a unit"
            _refuse(token, f"{digits + unit!r} {has}: write {like}")
        return float(digits) * units[unit]

    def one(token: _Token, text: str) -> Range:
        if between := _BETWEEN.fullmatch(text):
            low, high = number(token, between[1], between[2]), number(token, between[3], between[4])
            if low > high:
                _refuse(token, "the range ends before it begins")
            return Range(low, high)
        compared = _COMPARED.fullmatch(text)
        if compared is None:
            _refuse(token, f"{text!r:.100} is no number: write {like}")
        bound = number(token, compared[2], compared[3])
        match compared[1]:
            case ">":
                return Range(low=bound, low_open=True)
            case ">=":
                return Range(low=bound)
            case "<":
                return Range(high=bound, high_open=True)
            case "<=":
                return Range(high=bound)
        return Range(bound, bound)

    def read(token: _Token, now: datetime) -> Term:
        return _with(token, field, ranges=tuple(one(token, plain(value)) for value in token.values))

    return read


def _time(token: _Token, now: datetime, *, since: bool) -> Term:
    if len(token.values) > 1:
        _refuse(token, "one time is all that it takes")
    at_ms = float(_moment_ms(token, token.values[0], now))
    # Who does not want what is since a time wants what was before it.
    is_low = since is not token.negated
    bound = Range(low=at_ms) if is_low else Range(high=at_ms, high_open=True)
    return _with(token._replace(negated=False), "created", ranges=(bound,))


def _moment_ms(token: _Token, text: str, now: datetime) -> int:
    try:
        if (age := _AGE.fullmatch(text)) and age[2] in _AGES_S:
            moment = now - timedelta(seconds=int(age[1]) * _AGES_S[age[2]])
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return min(max(0, (moment - _EPOCH) // timedelta(milliseconds=1)), LAST_MS)
    except (ValueError, OverflowError):
        _refuse(
            token,
            f"{text!r:.100} is no time: write an age such as 30m, 24h, 7d or 2w, or a time in UTC such as"
            " 2026-11-20 or 2026-11-20T14:30",
        )


_FIELDS: dict[str, Callable[[_Token, datetime], Term]] = {
    "status": _one_of("status", get_args(RunStatus)),
    "flow": _any_word("flow"),
    "version": _numbers(
        "version",
        {"": 1.0},
        "3, >3 or 2..5, and 0 for the draft",
        plain=lambda text: "0" if text == "draft" else re.sub(r"^v(?=\d)", "", text).lower(),
    ),
    "trigger": _one_of("trigger", TRIGGERS),
    "kind": _one_of("kind", KINDS),
    "session": _any_word("session", session_id_of),
    "service": _any_word("service"),
    "release": _any_word("release"),
    "environment": _any_word("environment"),
    "user": _any_word("user"),
    "tag": _any_word("tag"),
    "since": lambda token, now: _time(token, now, since=True),
    "until": lambda token, now: _time(token, now, since=False),
    "duration": _numbers("duration", _DURATIONS, ">3s, 842ms, <=2m or 1s..5s"),
    "cost": _numbers(
        "cost",
        {"": 1.0},
        ">0.01 or 0.5..2, in US dollars",
        plain=lambda text: text.replace("$", "").lower(),
    ),
    "tokens": _numbers("tokens", _COUNTS, ">1000, 12k or 1k..5k"),
    "step": _any_word("step"),
    "model": _any_word("model"),
    "error": _any_word("error"),
    "text": _any_word("text"),
}

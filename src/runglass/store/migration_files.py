"""Numbered SQL files as migrations, and what those of both kinds of store derive from the logs of runs."""

import re
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec

from runglass.log.events import decode_event
from runglass.log.fold import DAMAGE, TraceFold

_BREAKS = re.compile(r"-- Breaks programs that know no more than migration (\d+)\.")


class Migration(NamedTuple):
    """`breaks` is the number of the last migration whose programs cannot work with this one; 0 for none."""

    number: int
    name: str
    sql: str
    breaks: int = 0


def migrations_in(package: str) -> list[Migration]:
    """All migrations of this version, in order."""
    found = []
    for file in files(package).joinpath("sql").iterdir():
        if file.name[:4].isdigit() and file.name.endswith(".sql"):
            sql = file.read_text(encoding="utf-8")
            breaks = _BREAKS.match(sql)
            found.append(Migration(int(file.name[:4]), file.name, sql, int(breaks[1]) if breaks else 0))
    return sorted(found)


class FoldedSummary:
    """A run's summary with what its events, in their order, add up to; as it was if they cannot be read."""

    def __init__(self) -> None:
        self._summary = b""
        self._fold = TraceFold()
        self._is_readable = True

    def step(self, summary: bytes, event: bytes) -> None:
        self._summary = summary
        try:
            if self._is_readable:
                self._fold.apply(decode_event(event))
        except DAMAGE:
            self._is_readable = False

    def finalize(self) -> bytes:
        try:
            known = msgspec.json.decode(without_nulls(self._summary), type=dict[str, Any])
        except DAMAGE:
            return self._summary
        # What stands in the row alone, such as the slug in logs that did not tell it, stays.
        told = msgspec.to_builtins(self._fold.summary) if self._is_readable else {}
        return msgspec.json.encode(known | told)


def without_nulls(data: bytes) -> bytes:
    """A JSON object without those of its own members that are null; what cannot be read stays as it is."""
    try:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except DAMAGE:
        return data
    return msgspec.json.encode({name: value for name, value in members.items() if bytes(value) != b"null"})

"""What the spans of a recorded run say of it: its session, user, tags, service, release and environment."""

from collections import Counter
from collections.abc import Iterator
from heapq import nsmallest
from typing import Any

from runglass.log.span_state import SpanState

MOST_TAGS = 100
MOST_CHARS = 200
"""Of a word in the run's summary, which stands in every list."""
FIELDS = ("session", "user", "service", "release", "environment")

Said = tuple[str | None, ...]


def differing(field: str) -> str:
    """The note of a run whose spans tell more than one word for the field."""
    return f"spans tell more than one {field}"


class SpanWords:
    """Of each field the word of the span that began first of those with one, and whether there are more."""

    def __init__(self) -> None:
        self._words: dict[Said, int] = {}
        self._all: list[Said] = []
        """What spans say, and in `_spans` how many say it."""
        self._spans: Counter[int] = Counter()
        self.held_bytes = 0
        """About how much memory it takes, but for the tags."""
        self._first: list[tuple[int, str] | None] = [None] * len(FIELDS)
        self._spoken: Counter[tuple[str, str]] = Counter()
        self._distinct: Counter[str] = Counter()
        self._tags: set[str] = set()

    def note(self, span: SpanState, key: int, before: int) -> int:
        """Takes in what a span says now, which said `before`, -1 for nothing; keys are in order of start."""
        if span.tags:
            self._tags.update([tag[:MOST_CHARS] for tag in span.tags])
            if len(self._tags) > MOST_TAGS:
                self._tags = set(nsmallest(MOST_TAGS, self._tags))
        told = (span.session, span.user, span.service, span.release, span.environment)
        if before == -1 and told == _NOTHING:
            return -1
        number = self._words.get(told)
        if number is None:
            said = tuple([word and word[:MOST_CHARS] for word in told])
            number = self._words.get(said)
            if number is None:
                number = self._words[said] = len(self._all)
                self._all.append(said)
                self.held_bytes += 300 + sum([200 + len(word) for word in said if word is not None])
        if number != before:
            self._count(number, 1)
            if before != -1:
                self._count(before, -1)
        for index, word in enumerate(self._all[number]):
            first = self._first[index]
            if word is not None and (first is None or key <= first[0]):
                self._first[index] = key, word
        return number

    def fields(self) -> dict[str, Any]:
        """The fields of a `Recording` that come of it."""
        first = [None if first is None else first[1] for first in self._first]
        return dict(zip(FIELDS, first, strict=True)) | {"tags": tuple(sorted(self._tags))}

    def notes(self) -> Iterator[str]:
        for field in FIELDS:
            if self._distinct[field] > 1:
                yield differing(field)

    def _count(self, number: int, times: int) -> None:
        self._spans[number] += times
        if self._spans[number] != max(times, 0):
            return
        # The first that say so, or none any more.
        for field, word in zip(FIELDS, self._all[number], strict=True):
            if word is not None:
                self._spoken[field, word] += times
                if self._spoken[field, word] == max(times, 0):
                    self._distinct[field] += times


_NOTHING: Said = (None,) * len(FIELDS)

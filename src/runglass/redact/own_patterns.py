"""The patterns of the setting `redact_patterns`: their authors may have written one that backtracks for ever.

They run in the `regex` library, whose searches can be ended. A text that could not be searched in its time
counts as a secret from its first to its last character.
"""

import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from runglass.redact.views import Span

if TYPE_CHECKING:
    import regex

_LOG = logging.getLogger(__name__)
_LEAST_S = 0.05
_S_PER_CHARACTER = 1e-6
"""A pattern without nested repeats takes less than a tenth of it."""
_SLOW_TEXTS = 3
"""So many texts are given their whole time; a pattern that was late for all of them is late always."""


class OwnPatterns:
    """Raises ValueError for a pattern that cannot be used."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_compiled(pattern) for pattern in patterns]
        self._late = dict.fromkeys(self._patterns, 0)
        self._told: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._patterns)

    @property
    def late(self) -> list[str]:
        """Those that were late for a text."""
        return [pattern.pattern for pattern, times in self._late.items() if times]

    def warn_of(self, late: Iterable[str]) -> None:
        """Logs that these are late, each once."""
        for pattern in late:
            if pattern not in self._told:
                self._told.add(pattern)
                message = "redact_patterns: %r takes too long; texts for which it does are left out whole"
                _LOG.warning(message, pattern)

    def find(self, text: str) -> list[Span]:
        """Spans of all matches; of a pattern that is late the whole text.

        Each has 50 ms and 1 µs for each character of processor time, twice, and a hundredth of that after it
        was late three times, so that many hostile texts cost no more than a few.
        """
        found: list[Span] = []
        for pattern in self._patterns:
            allowed = _LEAST_S + _S_PER_CHARACTER * len(text)
            if self._late[pattern] >= _SLOW_TEXTS:
                allowed /= 100
            # The time of the whole process counts: one search may be late for another thread, or the garbage
            # collector, and the next one is not.
            for _ in range(2):
                try:
                    found += [match.span() for match in pattern.finditer(text, timeout=allowed)]
                    break
                except TimeoutError:
                    continue
            else:
                self._late[pattern] += 1
                self.warn_of([pattern.pattern])
                return [(0, len(text))]
        return found


def _compiled(pattern: str) -> "regex.Pattern[str]":
    # Imported when needed: a server without such patterns starts sooner and stays smaller.
    import regex

    try:
        # What Python's own engine takes is the rule; `regex` knows a little more.
        fits_all = re.compile(pattern).fullmatch("")
        compiled = regex.compile(pattern)
    except (re.error, regex.error) as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    if fits_all:
        raise ValueError(f"pattern {pattern!r} matches the empty text, so it would be found everywhere")
    return compiled

"""Which texts a query looks for in the log of a run, in which fields, and what the finds say of the run.

Capital and small letters of ASCII are the same. A log may be too long for one request: the search then says
which event it has come to, and which of the texts it has met, and goes on from there.
"""

from typing import NamedTuple

import msgspec

from runglass.wire.query import RunQuery

SEARCHED_FIELDS = (
    "inputData",
    "output",
    "outputData",
    "result",
    "error",
    "reason",
    "modelCall.request",
    "modelCall.response",
    "toolCallMessages",
    "blockOverrides",
    "inputOverrides",
)
"""Where events have content. Fields that repeat what another one has are left out."""


class Progress(NamedTuple):
    """How far the log of a run was searched: up to event `seq`, with the texts met as bits of `met`."""

    seq: int = 0
    met: int = 0


class SearchedTexts:
    """The texts that a run must have, and those that it must not have, each with its bit in `Progress.met`.

    `patterns` has them as they stand inside strings of JSON, in small letters.
    """

    def __init__(self, query: RunQuery) -> None:
        terms = query.of_field("text")
        self.patterns = [msgspec.json.encode(term.words[0])[1:-1].lower() for term in terms]
        self._wanted = sum(1 << number for number, term in enumerate(terms) if not term.negated)
        self._unwanted = sum(1 << number for number, term in enumerate(terms) if term.negated)

    def verdict(self, met: int) -> bool | None:
        """Whether a run with these bits meets the terms; None where the rest of its log decides."""
        if met & self._unwanted:
            return False
        return True if not self._unwanted and self.at_the_end(met) else None

    def at_the_end(self, met: int) -> bool:
        """Whether a run meets the terms whose log has nothing further."""
        return met & self._wanted == self._wanted

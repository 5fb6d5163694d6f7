"""What a query of the list of runs asks for, as values: terms that a run must all meet.

Stores search by these values; the text that people type is read in `wire/query_parser.py`. Knows nothing of
how runs are stored, and does not say how a term is tested.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Field = Literal[
    "status",
    "flow",
    "version",
    "trigger",
    "kind",
    "session",
    "service",
    "release",
    "environment",
    "user",
    "tag",
    "created",
    "duration",
    "cost",
    "tokens",
    "step",
    "model",
    "error",
    "text",
]

FIXED: frozenset[Field] = frozenset({"flow", "version", "trigger", "kind", "session", "created"})
"""The fields that a run has from its creation on, and that never change, but for `TOLD_LATER`."""
TOLD_LATER: frozenset[Field] = frozenset({"trigger", "kind", "session"})
"""Those that later spans of a recorded run may change: `plain` becomes `recorded`, never the other way."""


def kind_of(trigger: str) -> str:
    """Who has executed the run: `executed` is by Runglass, the others are of other programs."""
    return trigger if trigger in ("recorded", "plain") else "executed"


def first_id(created_ms: int) -> str:
    """The lowest id of a run that is created then: ids are UUIDv7, which begin with the milliseconds."""
    return str(uuid.UUID(int=created_ms << 80))


def created_ms(run_id: str) -> int:
    """When the run with that id was created, in milliseconds since 1970."""
    return uuid.UUID(run_id).int >> 80


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included unless they are open; None is no bound."""

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def holds(self, number: float) -> bool:
        """Whether the number is in the range."""
        if self.low is not None and (number < self.low or (self.low_open and number == self.low)):
            return False
        return self.high is None or number < self.high or (not self.high_open and number == self.high)


class Term(NamedTuple):
    """One condition: the run's field has one of `words`, or is in one of `ranges`; or not, where `negated`.

    `flow` has ids of flows, `created` milliseconds since 1970, `duration` milliseconds, `cost` US dollars.
    `source` is the term as it was typed and `position` where it begins, in characters from 0.
    """

    field: Field
    words: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    negated: bool = False
    source: str = ""
    position: int = 0

    def meets(self, value: str | float) -> bool:
        """Whether a value of the field meets the term; for fields that have one value."""
        if isinstance(value, str):
            return (value in self.words) is not self.negated
        return any(each.holds(value) for each in self.ranges) is not self.negated


HIDES_PLAIN = Term("kind", ("plain",), negated=True)
"""What a list asks for by itself, unless it is asked for plain runs."""


class RunQuery(NamedTuple):
    """The terms that a run must meet; without terms every run does."""

    terms: tuple[Term, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        flow_id: str | None = None,
        statuses: Sequence[str] = (),
        trigger: str | None = None,
        created: Iterable[Range] = (),
    ) -> "RunQuery":
        """A query made of values; what is None or empty is not asked for."""
        terms = [Term("created", ranges=(each,)) for each in created]
        if flow_id is not None:
            terms.append(Term("flow", (flow_id,)))
        if statuses:
            terms.append(Term("status", tuple(statuses)))
        if trigger is not None:
            terms.append(Term("trigger", (trigger,)))
        return cls(tuple(terms))

    def plus(self, *terms: Term) -> "RunQuery":
        """The query with further terms."""
        return RunQuery((*self.terms, *terms))

    def listed(self) -> "RunQuery":
        """The query of a list: without plain runs, unless it names them."""
        named = [each for each in self.terms if each.field in ("kind", "trigger") and not each.negated]
        return self if any("plain" in each.words for each in named) else self.plus(HIDES_PLAIN)

    def only(self, fields: Iterable[Field]) -> "RunQuery":
        """The terms of these fields alone."""
        wanted = frozenset(fields)
        return RunQuery(tuple(term for term in self.terms if term.field in wanted))

    def without(self, fields: Iterable[Field]) -> "RunQuery":
        """The terms of all other fields."""
        unwanted = frozenset(fields)
        return RunQuery(tuple(term for term in self.terms if term.field not in unwanted))

    def of_field(self, field: Field) -> tuple[Term, ...]:
        """The terms of one field."""
        return tuple(term for term in self.terms if term.field == field)

    def allows(self, field: Field, value: str | float) -> bool:
        """Whether a run with this value of the field can meet the query."""
        return all(term.meets(value) for term in self.of_field(field))

    def words_of(self, field: Field) -> list[str] | None:
        """The words of which the field must have one, in their order; None where it may have any."""
        named = [term.words for term in self.of_field(field) if term.words and not term.negated]
        if not named:
            return None
        return [word for word in dict.fromkeys(named[0]) if self.allows(field, word)]

    def created_bounds_ms(self) -> tuple[int, int | None]:
        """From when on and before when a run must have been created; None is no bound."""
        since, until = 0, None
        for term in self.of_field("created"):
            for each in term.ranges:
                if each.low is not None:
                    since = max(since, int(each.low))
                if each.high is not None:
                    until = int(each.high) if until is None else min(until, int(each.high))
        return since, until

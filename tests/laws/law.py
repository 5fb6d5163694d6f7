"""What a law is: a sentence about a run that must hold, and what is told where it does not."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

Given = ParamSpec("Given")

LAWS: list[str] = []
"""The sentences of all laws that have been imported."""


class Lie(NamedTuple):
    """A law that does not hold: of which run, after which event, and the two values that differ."""

    law: str
    run_id: str
    seq: int
    found: object
    expected: object

    def __str__(self) -> str:
        return f"{self.law}: run {self.run_id}, event {self.seq}: {self.found!r}, not {self.expected!r}"


Lies = Iterator[Lie]


def law(sentence: str) -> str:
    """The sentence, which is one of the laws from now on."""
    assert sentence not in LAWS, sentence
    LAWS.append(sentence)
    return sentence


Differences = Iterator[tuple[object, object]]
"""Pairs that should be equal: what was found, and what was expected."""


def named(sentence: str) -> Callable[[Callable[..., Differences]], Callable[..., Lies]]:
    """Makes a law of a function of a log that yields values to compare."""
    name = law(sentence)

    def decorate(compare: Callable[..., Differences]) -> Callable[..., Lies]:
        @wraps(compare)
        def check(log: Any, *given: Any) -> Lies:
            for found, expected in compare(log, *given):
                if found != expected:
                    yield Lie(name, log.run_id, len(log.events), found, expected)

        return check

    return decorate


def require(lies: Iterable[object], place: str = "", said: str = "") -> None:
    """Raises AssertionError with the first of these, if there are any, and with what the server said."""
    found = [str(lie) for lie in lies]
    head = [f"{place}: {len(found)} lies"] if place else []
    assert not found, "\n".join([*head, *found[:20], *(["the server said:", said] if said else [])])

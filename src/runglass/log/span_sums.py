"""What the spans of a recorded run have used: sums to which is added and from which is taken away again.

Which of it counts is decided by the tree (`log/span_tree.py`).
"""

from array import array
from collections import defaultdict
from collections.abc import Mapping
from copy import copy
from decimal import Decimal
from heapq import nsmallest
from typing import NamedTuple

from runglass.log.money import ZERO, add_usd, format_usd, scaled, subtract_usd
from runglass.log.trace import ModelTotals, RunTotals, TokenBreakdown

MOST_NAMES = 100
"""Models, and reasons why calls ended, that are told apart; the others are `OTHER`."""
OTHER = "other"


class SpanUsage(NamedTuple):
    """What a span has used, or is about to, as a call of a model."""

    model: str
    tokens: TokenBreakdown | None
    cost_usd: Decimal | None
    finish_reason: str | None


class SpanUsages:
    """What nodes have used, in arrays: as an object each would take ten times as much memory."""

    def __init__(self) -> None:
        self._place = array("i")
        self._numbers, self._label = array("q"), array("i")
        self._labels: list[tuple[str, str | None, bool, int]] = []
        self._label_of: dict[tuple[str, str | None, bool, int], int] = {}
        self._odd: dict[int, SpanUsage] = {}
        """Of what does not fit into arrays."""
        self._last: tuple[int, SpanUsage] | None = None

    @property
    def held_bytes(self) -> int:
        """About how much memory it takes."""
        return 40 * len(self._label) + 600 * len(self._odd) + 300 * len(self._labels)

    def grow(self, more: int) -> None:
        """Makes more nodes."""
        self._place.extend([-1] * more)

    def put(self, node: int, usage: SpanUsage, cost_usd: str | None) -> None:
        """`cost_usd` is the cost as it was told."""
        self._last = node, usage
        whole, _, fraction = (cost_usd or "0").partition(".")
        tokens, places = usage.tokens, -1 if cost_usd is None else len(fraction)
        try:
            counts = (0, 0, 0) if tokens is None else (tokens.prompt, tokens.completion, tokens.total)
            numbers = array("q", (*counts, int(whole + fraction)))
        except (TypeError, ValueError, OverflowError):
            self._odd[node] = usage
            return
        self._odd.pop(node, None)
        if (place := self._place[node]) == -1:
            place = self._place[node] = len(self._label)
            self._numbers.extend(numbers)
            self._label.append(0)
        else:
            self._numbers[4 * place : 4 * place + 4] = numbers
        about = usage.model, usage.finish_reason, tokens is not None, places
        if (label := self._label_of.get(about)) is None:
            label = self._label_of[about] = len(self._labels)
            self._labels.append(about)
        self._label[place] = label

    def of(self, node: int) -> SpanUsage:
        if self._last is not None and self._last[0] == node:
            return self._last[1]
        if (odd := self._odd.get(node)) is not None:
            return odd
        place = self._place[node]
        *counts, digits = self._numbers[4 * place : 4 * place + 4]
        model, finish_reason, has_tokens, places = self._labels[self._label[place]]
        tokens = TokenBreakdown(*counts) if has_tokens else None
        cost = None if places < 0 else scaled(digits, places)
        return SpanUsage(model, tokens, cost, finish_reason)


class _Sum:
    __slots__ = (
        *("calls", "unmetered", "unpriced", "metered", "priced", "prompt", "completion", "total"),
        "cost_usd",
    )

    def __init__(self) -> None:
        self.calls = self.unmetered = self.unpriced = self.metered = self.priced = 0
        self.prompt = self.completion = self.total = 0
        self.cost_usd = ZERO

    def add(self, usage: SpanUsage, times: int) -> None:
        if (tokens := usage.tokens) is not None:
            self.metered += times
            self.prompt += times * int(tokens.prompt)
            self.completion += times * int(tokens.completion)
            self.total += times * int(tokens.total)
        if usage.cost_usd is None:
            self.unpriced += times
        else:
            self.priced += times
            self.cost_usd = (add_usd if times > 0 else subtract_usd)(self.cost_usd, usage.cost_usd)

    def take_away(self, other: "_Sum") -> None:
        for name in self.__slots__[:-1]:
            setattr(self, name, getattr(self, name) - getattr(other, name))
        self.cost_usd = subtract_usd(self.cost_usd, other.cost_usd)

    @property
    def tokens(self) -> TokenBreakdown | None:
        return TokenBreakdown(self.prompt, self.completion, self.total) if self.metered else None

    @property
    def cost_text(self) -> str | None:
        return format_usd(self.cost_usd) if self.priced else None


class SpanSums:
    """The usage and the calls that count; `times` is 1 to add, and -1 to take away what was added."""

    def __init__(self) -> None:
        self._all, self._failed = _Sum(), _Sum()
        self._models: defaultdict[str, _Sum] = defaultdict(_Sum)
        self._reasons: defaultdict[str, int] = defaultdict(int)

    @property
    def names(self) -> int:
        """How many names of models and reasons there are, those included that have nothing any more."""
        return len(self._models) + len(self._reasons)

    def add_usage(self, usage: SpanUsage, times: int, *, has_failed: bool) -> None:
        self._all.add(usage, times)
        self._models[usage.model].add(usage, times)
        if has_failed:
            self._failed.add(usage, times)

    def add_call(self, usage: SpanUsage, times: int) -> None:
        self._all.calls += times
        self._models[usage.model].calls += times
        if usage.finish_reason is not None:
            self._reasons[usage.finish_reason] += times

    def add_unmetered(self, usage: SpanUsage, times: int) -> None:
        self._all.unmetered += times
        self._models[usage.model].unmetered += times

    def totals(self, *, completed: int, failed: int) -> RunTotals:
        """All of it, with so many spans that have completed and failed."""
        reasons = {reason: count for reason, count in self._reasons.items() if count}
        told = {reason: reasons.pop(reason) for reason in sorted(_most(reasons))}
        if reasons:
            told[OTHER] = told.get(OTHER, 0) + sum(reasons.values())
        return RunTotals(
            completed=completed,
            failed=failed,
            tokens=self._all.tokens,
            cost_usd=self._all.cost_text,
            failed_tokens=self._failed.tokens,
            failed_cost_usd=self._failed.cost_text,
            unmetered_calls=self._all.unmetered,
            unpriced_calls=self._all.unpriced,
            by_model=self._by_model(),
            finish_reasons=told,
        )

    def _by_model(self) -> dict[str, ModelTotals]:
        counts = {n: sum.calls for n, sum in self._models.items() if sum.calls or sum.metered or sum.priced}
        told = {name: self._models[name] for name in _most(counts)}
        if len(told) < len(counts):
            # All but those that are told: a sender can have very many names.
            told.pop(OTHER, None)
            others = copy(self._all)
            for sum in told.values():
                others.take_away(sum)
            told[OTHER] = others
        return {
            name: ModelTotals(
                calls=sum.calls,
                tokens=sum.tokens,
                cost_usd=sum.cost_text,
                unmetered_calls=sum.unmetered,
                unpriced_calls=sum.unpriced,
            )
            for name, sum in told.items()
        }


def _most(counts: Mapping[str, int]) -> list[str]:
    """The names with the largest numbers, of equal ones the first in the alphabet."""
    return nsmallest(MOST_NAMES, counts, key=lambda name: (-counts[name], name))

"""What a run adds up to so far: the `summary` of its last event."""

from decimal import Decimal
from typing import Any

import msgspec

from runglass.engine.prices import format_usd
from runglass.trace import TokenBreakdown


class Totals(msgspec.Struct, kw_only=True):
    """Counts and sums over all attempts of a run, failed ones included: what was paid was paid."""

    completed: int = 0
    failed: int = 0
    retried: int = 0
    skipped: int = 0
    tokens: TokenBreakdown | None = None
    cost_usd: Decimal | None = None
    unpriced_calls: int = 0

    def add(self, tokens: TokenBreakdown | None, cost_usd: Decimal | None, *, asked: bool) -> None:
        """One attempt; `asked` says whether a model was asked, so that an unknown price is told from none."""
        self.tokens = sum_of_tokens(self.tokens, tokens)
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or Decimal(0)) + cost_usd
        elif asked:
            self.unpriced_calls += 1

    def summary(self) -> dict[str, Any]:
        """`costUsd` adds up the known prices, null if none is known; `unpricedCalls` counts the others."""
        return {
            "completed": self.completed,
            "failed": self.failed,
            "retried": self.retried,
            "skipped": self.skipped,
            "tokens": self.tokens,
            "costUsd": None if self.cost_usd is None else format_usd(self.cost_usd),
            "unpricedCalls": self.unpriced_calls,
        }


def sum_of_tokens(one: TokenBreakdown | None, other: TokenBreakdown | None) -> TokenBreakdown | None:
    """Both together; None where neither is known."""
    if one is None or other is None:
        return one or other
    return TokenBreakdown(
        prompt=one.prompt + other.prompt,
        completion=one.completion + other.completion,
        total=one.total + other.total,
    )

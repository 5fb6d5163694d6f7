"""What a run adds up to so far: the `summary` of its last event."""

from decimal import Decimal
from typing import Any

from runglass.engine.prices import format_usd
from runglass.trace import TokenBreakdown


class Totals:
    """Counts and sums over all attempts of a run, failed ones included: what was paid was paid."""

    def __init__(self) -> None:
        self.completed = 0
        self.failed = 0
        self.retried = 0
        self.skipped = 0
        self._tokens: TokenBreakdown | None = None
        self._cost_usd: Decimal | None = None
        self._unpriced = 0

    def add(self, tokens: TokenBreakdown | None, cost_usd: Decimal | None, *, asked: bool) -> None:
        """One attempt; `asked` says whether a model was asked, so that an unknown price is told from none."""
        if tokens is not None:
            before = self._tokens or TokenBreakdown(prompt=0, completion=0, total=0)
            self._tokens = TokenBreakdown(
                prompt=before.prompt + tokens.prompt,
                completion=before.completion + tokens.completion,
                total=before.total + tokens.total,
            )
        if cost_usd is not None:
            self._cost_usd = (self._cost_usd or Decimal(0)) + cost_usd
        elif asked:
            self._unpriced += 1

    def summary(self) -> dict[str, Any]:
        """`costUsd` adds up the known prices, null if none is known; `unpricedCalls` counts the others."""
        return {
            "completed": self.completed,
            "failed": self.failed,
            "retried": self.retried,
            "skipped": self.skipped,
            "tokens": self._tokens,
            "costUsd": None if self._cost_usd is None else format_usd(self._cost_usd),
            "unpricedCalls": self._unpriced,
        }

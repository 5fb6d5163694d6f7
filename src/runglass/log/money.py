"""Exact amounts of US dollars, and the totals of a run, event by event: the numbers behind `flowRun.totals`.

Amounts are added up without rounding, and written as plain decimal strings. Only the fold adds to totals, so
the stored run, its stream and its budget cannot disagree.
"""

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from typing import NamedTuple

from msgspec.structs import replace

from runglass.log.trace import ModelCall, ModelTotals, RunTotals, StepTrace, TokenBreakdown

# Sums and differences of decimals are finite, so a context with enough digits gives them exactly. A context
# that had to round raises instead.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])


ZERO = Decimal(0)


def add_usd(one: Decimal, other: Decimal) -> Decimal:
    """The exact sum."""
    return _EXACT.add(one, other)


def subtract_usd(one: Decimal, other: Decimal) -> Decimal:
    """The exact difference."""
    return _EXACT.subtract(one, other)


def scaled(digits: int, places: int) -> Decimal:
    """The number with so many decimal places."""
    return _EXACT.scaleb(Decimal(digits), -places)


def price_of(per_million: Decimal, count: int) -> Decimal:
    """The exact cost of `count` tokens at a price for a million."""
    return _EXACT.scaleb(_EXACT.multiply(per_million, Decimal(count)), -6)


def parse_usd(text: str) -> Decimal | None:
    """The amount that somebody has written; None for what is no number, or below zero."""
    try:
        usd = Decimal(text)
    except InvalidOperation:
        return None
    return usd if usd.is_finite() and usd >= 0 else None


def format_usd(amount: Decimal) -> str:
    """A plain decimal string: no exponent, no trailing zeros, every digit kept.

    Raises ValueError for NaN and infinity.
    """
    if not amount.is_finite():
        raise ValueError(f"{amount} is not an amount of money")
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


class Spent(NamedTuple):
    """Tokens and US dollars; None where nothing is known."""

    tokens: TokenBreakdown | None = None
    cost_usd: Decimal | None = None

    @classmethod
    def read(cls, tokens: TokenBreakdown | None, cost_usd: str | None) -> "Spent":
        return cls(tokens, None if cost_usd is None else Decimal(cost_usd))

    def plus(self, other: "Spent") -> "Spent":
        return Spent(sum_of_tokens(self.tokens, other.tokens), sum_of_usd(self.cost_usd, other.cost_usd))

    def minus(self, other: "Spent") -> "Spent":
        """This without `other`, which is a part of it; None for an amount of nothing."""
        tokens, cost_usd = self.tokens, self.cost_usd
        if tokens is not None and other.tokens is not None:
            tokens = TokenBreakdown(
                prompt=tokens.prompt - other.tokens.prompt,
                completion=tokens.completion - other.tokens.completion,
                total=tokens.total - other.tokens.total,
            )
        if cost_usd is not None and other.cost_usd is not None:
            cost_usd = subtract_usd(cost_usd, other.cost_usd)
        return Spent(tokens if tokens and tokens.total else None, cost_usd or None)

    @property
    def cost_text(self) -> str | None:
        """The amount as it stands in JSON."""
        return None if self.cost_usd is None else format_usd(self.cost_usd)


class _OfModel:
    def __init__(self, known: ModelTotals) -> None:
        self.calls = known.calls
        self.unmetered = known.unmetered_calls
        self.unpriced = known.unpriced_calls
        self.spent = Spent.read(known.tokens, known.cost_usd)

    def totals(self) -> ModelTotals:
        return ModelTotals(
            calls=self.calls,
            tokens=self.spent.tokens,
            cost_usd=self.spent.cost_text,
            unmetered_calls=self.unmetered,
            unpriced_calls=self.unpriced,
        )


class Totals:
    """Adds up attempts and model calls, on top of the totals `known`."""

    __slots__ = (
        "_estimated_usd",
        "_finish_reasons",
        "_frozen",
        "_models",
        "_unmetered",
        "_unpriced",
        "cancelled",
        "completed",
        "failed",
        "failed_spent",
        "retried",
        "skipped",
        "spent",
    )

    def __init__(self, known: RunTotals | None = None) -> None:
        known = known or RunTotals()
        self.completed = known.completed
        self.failed = known.failed
        self.retried = known.retried
        self.skipped = known.skipped
        self.cancelled = known.cancelled
        self.spent = Spent.read(known.tokens, known.cost_usd)
        self.failed_spent = Spent.read(known.failed_tokens, known.failed_cost_usd)
        self._unmetered = known.unmetered_calls
        self._unpriced = known.unpriced_calls
        self._estimated_usd = Spent.read(None, known.estimated_cost_usd).cost_usd
        self._models = {name: _OfModel(model) for name, model in known.by_model.items()}
        self._finish_reasons = dict(known.finish_reasons)
        # Until money is spent only counts change in it.
        self._frozen: RunTotals | None = known

    def add_call(self, call: ModelCall, spent: Spent) -> None:
        """Adds one request to a model, answered or failed, and what it took."""
        self._add(
            call.model,
            spent,
            unmetered=call.cost_unknown in ("no_usage", "bad_usage"),
            unpriced=call.cost_unknown == "no_price",
        )
        if call.cost_estimated:
            self._estimated_usd = sum_of_usd(self._estimated_usd, Decimal(call.cost_usd or 0))
        if call.finish_reason is not None:
            self._finish_reasons[call.finish_reason] = self._finish_reasons.get(call.finish_reason, 0) + 1

    def add_growth(self, model: str, before: StepTrace, after: StepTrace) -> None:
        """Adds the spending of an attempt since `before`, for logs without `step_model_call` events."""
        spent = Spent.read(after.tokens, after.cost_usd).minus(Spent.read(before.tokens, before.cost_usd))
        if spent.tokens is not None or spent.cost_usd is not None or before.model_used is None:
            self._add(model, spent, unmetered=False, unpriced=after.cost_usd is None)

    def add_failed(self, attempt: StepTrace) -> None:
        """Counts the spending of an attempt, which is in the sum already, as that of a failed one."""
        self.failed_spent = self.failed_spent.plus(Spent.read(attempt.tokens, attempt.cost_usd))
        self._frozen = None

    def frozen(self) -> RunTotals:
        """The present totals."""
        if self._frozen is None:
            self._frozen = RunTotals(
                tokens=self.spent.tokens,
                cost_usd=self.spent.cost_text,
                failed_tokens=self.failed_spent.tokens,
                failed_cost_usd=self.failed_spent.cost_text,
                unmetered_calls=self._unmetered,
                unpriced_calls=self._unpriced,
                estimated_cost_usd=None if self._estimated_usd is None else format_usd(self._estimated_usd),
                by_model={name: model.totals() for name, model in self._models.items()},
                finish_reasons=dict(self._finish_reasons),
            )
        self._frozen = replace(
            self._frozen,
            completed=self.completed,
            failed=self.failed,
            retried=self.retried,
            skipped=self.skipped,
            cancelled=self.cancelled,
        )
        return self._frozen

    def _add(self, model: str, spent: Spent, *, unmetered: bool, unpriced: bool) -> None:
        self._frozen = None
        self.spent = self.spent.plus(spent)
        self._unmetered += unmetered
        self._unpriced += unpriced
        of_model = self._models.get(model)
        if of_model is None:
            of_model = self._models[model] = _OfModel(ModelTotals(calls=0))
        of_model.calls += 1
        of_model.unmetered += unmetered
        of_model.unpriced += unpriced
        of_model.spent = of_model.spent.plus(spent)


def sum_of_usd(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """Both together, exactly; None where neither is known."""
    if one is None or other is None:
        return other if one is None else one
    return add_usd(one, other)


def sum_of_tokens(one: TokenBreakdown | None, other: TokenBreakdown | None) -> TokenBreakdown | None:
    """Both together; None where neither is known."""
    if one is None or other is None:
        return one or other
    return TokenBreakdown(
        prompt=one.prompt + other.prompt,
        completion=one.completion + other.completion,
        total=one.total + other.total,
    )

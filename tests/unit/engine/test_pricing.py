"""Money is exact, and written as plain decimals."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.config.settings import Price
from runglass.engine.models.pricing import cost_of
from runglass.log.money import format_usd

dollars = st.decimals(min_value=0, max_value=10_000, places=9)
tokens = st.integers(min_value=0, max_value=10**12)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0.000045", "0.000045"),
        ("4.5E-5", "0.000045"),
        ("1E-18", "0.000000000000000001"),
        ("1.20", "1.2"),
        ("0.00", "0"),
        ("-0.0", "0"),
        ("0E+3", "0"),
        ("1E+3", "1000"),
        ("100", "100"),
        ("12.0", "12"),
    ],
)
def test_an_amount_is_written_without_exponent_and_without_trailing_zeros(amount: str, text: str) -> None:
    assert format_usd(Decimal(amount)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value="-1E+30", max_value="1E+30"))
def test_writing_an_amount_loses_no_digit(amount: Decimal) -> None:
    text = format_usd(amount)
    assert Decimal(text) == amount
    assert set(text) <= set("-.0123456789")


@pytest.mark.parametrize("amount", ["NaN", "Infinity"])
def test_what_is_no_amount_of_money_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="not an amount of money"):
        format_usd(Decimal(amount))


@given(dollars, dollars, st.none() | dollars, tokens, tokens, tokens)
def test_a_cost_is_exact(
    fresh_price: Decimal,
    output_price: Decimal,
    cached_price: Decimal | None,
    fresh: int,
    cached: int,
    completion: int,
) -> None:
    price = Price(
        input_per_mtok=fresh_price, output_per_mtok=output_price, cached_input_per_mtok=cached_price
    )
    # Without a price of its own, what was cached costs what input costs.
    of_cached = Fraction(fresh_price if cached_price is None else cached_price)
    exact = fresh * Fraction(fresh_price) + cached * of_cached + completion * Fraction(output_price)
    cost = cost_of(price, prompt=fresh + cached, completion=completion, cached=cached)
    assert Fraction(cost) == exact / 1_000_000

"""Slow JSON is recognised by its weight, and digits inside of texts do not count as numbers."""

import msgspec
import pytest

from runglass.support.json_weight import MOST_VALUES, too_heavy, weighs_more


@pytest.mark.parametrize(
    "text", ["[" * 5_000, '"' * 5_000, '\\"[,{' * 1_000, "\\", '\\\\",', "1e300:" * 900, ""]
)
def test_texts_are_one_value_each(text: str) -> None:
    data = msgspec.json.encode({"texts": [text, "a,b", text], text: 1})
    assert not weighs_more(data, 30)
    assert weighs_more(msgspec.json.encode([text, *[[]] * 30]), 30)


@pytest.mark.parametrize(
    ("data", "weight"),
    [
        (b"[1,2,3]", 3),
        (b'{"a":1,"b":[{"c":null}]}', 4 + 3 * 6),
        (b"[1e300,1E-300,1e+300,1e289]", 4 * (1 + 300)),
        (b"[1e23,1E23,1e+23,3.2e24,3.2e-24]", 4 * (1 + 14) + 1),
        (b"[1234567890.12345e4,1234567890.12345e-4,1234567890.12345e-05]", 3 + 2 * 14),
        (b"[" + b"7" * 99 + b"]", 1 + 4 * 4),
        (b"[0." + b"7" * 220 + b"]", 1 + 10 * 4 + 150),
        ('["ä", "a"]'.encode(), 2 + 2),
        (b'["e300", "1:2"]', 2),
    ],
)
def test_slow_values_count_as_several(data: bytes, weight: int) -> None:
    assert weighs_more(data, weight - 1)
    assert not weighs_more(data, weight)


def test_texts_are_recognised_wherever_the_json_is_cut() -> None:
    texts = ["1e300,{" * 200_000, '"\\' * 300_001, "", "a"]
    assert too_heavy(msgspec.json.encode(texts * 2)) is None
    assert too_heavy(msgspec.json.encode([*texts * 2, *[[]] * MOST_VALUES])) is not None


def test_heavy_json_is_refused_with_the_reason() -> None:
    assert too_heavy(msgspec.json.encode([[]] * 500_000)) is None
    assert too_heavy(msgspec.json.encode({"csv": "1,2,3,4," * 500_000})) is None
    told = (
        "it takes as long to be read as more than 2,000,000 values, of which long numbers and great exponents"
        " count as many"
    )
    assert too_heavy(msgspec.json.encode([[]] * 2_100_000)) == told
    assert too_heavy(msgspec.json.encode([""] * 2_100_000)) == told


def test_numbers_that_a_model_or_a_sensor_sends_are_not_heavy() -> None:
    vectors = [[(-1) ** i * (i + 1) / 7919.0 for i in range(1536)] for _ in range(300)]
    assert too_heavy(msgspec.json.encode({"vectors": vectors})) is None

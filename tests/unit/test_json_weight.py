"""What takes long to be read is told from the JSON, and texts are not counted as what they look like."""

import time

import msgspec
import pytest

from runglass.json_weight import MOST_VALUES, too_heavy, weighs_more


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
        (b'{"a":1,"b":[{"c":null}]}', 7),
        (b'[{"a" : 1},{"a":2},{"a":3}]', 9),
        (b"[1e5,1E-5,1e+5]", 18),
        (b"[1e300,1E-300,1e+300]", 3 * (1 + 5 + 40 + 300)),
        (b"[1e45,1E-99,1e+29,1e9]", 4 * (1 + 5) + 2 * 40),
        (b"[" + b"7" * 99 + b"]", 1 + 4 * 18),
        (b"[0." + b"7" * 100 + b"]", 1 + 4 * 18),
        (b"[9007199254740993.5]", 1 + 12),
        (b'["e300", "1:2"]', 2),
    ],
)
def test_what_is_dearer_counts_as_several(data: bytes, weight: int) -> None:
    assert weighs_more(data, weight - 1)
    assert not weighs_more(data, weight)


def test_what_a_text_holds_is_told_apart_wherever_it_is_cut() -> None:
    texts = ["1e300,{" * 200_000, '"\\' * 300_001, "", "a"]
    assert too_heavy(msgspec.json.encode(texts * 2)) is None
    assert too_heavy(msgspec.json.encode([*texts * 2, *[[]] * MOST_VALUES])) is not None


def test_what_is_heavy_is_told_with_the_reason() -> None:
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


@pytest.mark.parametrize(
    "value",
    [
        b"1e300",
        b"4.9e-324",
        b"1e23",
        b"0.14268893141404277039e-190",
        b"74593732.11091063739846025629842065455630e99",
        b"1.0000000000000001110223",
        b"9007199254740993.5",
        b"0." + b"9" * 400,
        b"1e199",
        b"12345678901234567890123.5e-29",
        b"9" * 4000,
        b'{"%06d":1}',
        b"{}",
    ],
)
def test_the_heaviest_that_is_taken_is_read_about_as_quickly_as_many_small_values(value: bytes) -> None:
    """No shape may take many times as long as the values that it weighs; `1e300` took 300 times."""

    def seconds(data: bytes) -> float:
        taken = []
        for _ in range(7):
            began = time.process_time()
            msgspec.json.decode(data)
            taken.append(time.process_time() - began)
        return min(taken)

    def made(count: int) -> bytes:
        return b"[%s]" % b",".join(value % index if b"%" in value else value for index in range(count))

    most, fewest, count = 30_000, 1, 30_000
    while count - fewest > max(1, count // 50):
        middle = (fewest + count) // 2
        fewest, count = (fewest, middle) if weighs_more(made(middle), most) else (middle, count)
    assert not weighs_more(made(fewest), most)
    objects = b"[%s]" % b",".join([b"[]"] * (most // 2))
    assert seconds(made(fewest)) < 4 * seconds(objects)

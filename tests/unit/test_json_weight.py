"""What takes long to be read is told from the JSON, and texts are not counted as what they look like."""

import msgspec
import pytest

from runglass.json_weight import has_many_long_numbers, has_more_values, too_heavy


@pytest.mark.parametrize("text", ["[" * 5_000, '"' * 5_000, '\\"[,{' * 1_000, "\\", '\\\\",', ""])
def test_texts_are_one_value_each(text: str) -> None:
    data = msgspec.json.encode({"texts": [text, "a,b", text], text: 1})
    assert not has_more_values(data, 10)
    assert has_more_values(msgspec.json.encode([text, *[[]] * 20]), 10)


def test_what_is_heavy_is_told_with_the_reason() -> None:
    assert too_heavy(msgspec.json.encode([[]] * 500_000)) is None
    assert too_heavy(msgspec.json.encode({"csv": "1,2,3,4," * 500_000})) is None
    assert too_heavy(msgspec.json.encode([[]] * 1_600_000)) == "it has more than 1,500,000 values"
    assert too_heavy(msgspec.json.encode([""] * 1_600_000)) == "it has more than 1,500,000 values"
    assert "500 digits" in (too_heavy(b"[%s]" % b",".join([b"9" * 500] * 101)) or "")
    assert not has_many_long_numbers(b"[%s]" % b",".join([b"9" * 500] * 100))

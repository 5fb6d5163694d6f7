"""What is recorded of a value: JSON of what is plain or declared, and of anything else its type alone."""

import dataclasses
import enum
import uuid
from collections import OrderedDict, namedtuple
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, Field, SecretStr

from runglass.recorder.values import MOST_BYTES, snapshot


class Loud:
    """A value that tells everything, and of which nobody may ask."""

    password = "hunter2"

    def __repr__(self) -> str:
        raise AssertionError("nobody asks for the repr of a user's object")

    __str__ = __repr__

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody asks a user's object for {name}")


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    secret: str = dataclasses.field(default="s", repr=False)


class Model(BaseModel):
    name: str
    key: SecretStr
    hidden: str = Field(default="s", repr=False)


class Row(msgspec.Struct):
    a: int


Pair = namedtuple("Pair", "left right")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, {"a": [1, 2.5, None, True, "é"]}),
        ((1, 2), [1, 2]),
        ({"client": Loud()}, {"client": f"<{__name__}.Loud>"}),
        ({Loud: 1, 5: 2}, {"<type>": 1, "5": 2}),
        (Point(1), {"x": 1}),
        (Model(name="n", key=SecretStr("s")), {"name": "n", "key": "<pydantic.types.SecretStr>"}),
        (Row(3), {"a": 3}),
        (Pair(1, "b"), {"left": 1, "right": "b"}),
        (OrderedDict(a=Color.RED), {"a": "red"}),
        (b"12345", "<bytes: 5 bytes>"),
        ([MOMENT, ID, Decimal("1.50"), PurePosixPath("/a")], [MOMENT.isoformat(), str(ID), "1.50", "/a"]),
        ([1 << 70, 1 << 99_999], [1 << 70, "<int: 100,000 bits>"]),
        ("half \ud800", "half ?"),
        (open, "<builtin_function_or_method>"),
    ],
)
def test_a_value_is_told_as_json(value: Any, told: Any) -> None:
    assert msgspec.json.decode(snapshot(value)[0]) == told


def test_a_value_is_bounded_however_large_deep_or_circular_it_is() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    for value in (circle, deep, "x" * (3 * MOST_BYTES), {str(n): n for n in range(500_000)}, [circle] * 9):
        data, is_cut = snapshot(value)
        assert is_cut
        assert len(data) < 2 * MOST_BYTES
        msgspec.json.decode(data)


def test_the_value_is_as_it_was_when_it_was_taken() -> None:
    value = {"items": [1]}
    data, _ = snapshot(value)
    value["items"].append(2)
    assert msgspec.json.decode(data) == {"items": [1]}

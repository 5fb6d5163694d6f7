"""What is recorded of a value: JSON of what is plain or declared, and of anything else its type alone."""

import dataclasses
import enum
import uuid
from collections import OrderedDict, namedtuple
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from pydantic import BaseModel, Field, RootModel, SecretStr, computed_field

from runglass.recorder.values import MOST_BYTES, snapshot


class Loud:
    """A value that tells everything, and of which nobody may ask."""

    password = "hunter2"

    def __repr__(self) -> str:
        raise AssertionError("nobody asks for the repr of a user's object")

    __str__ = __repr__

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody asks a user's object for {name}")


class Liar:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise AssertionError("nobody asks a liar")


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


class Outer(BaseModel):
    model: Model
    models: dict[str, list[Model]]
    point: Point
    left_out: int = Field(default=1, exclude=True)
    named: str = Field(default="s", repr=False, serialization_alias="alias")

    @computed_field
    def twice(self) -> int:
        return 2 * self.point.x


class Numbers(RootModel[list[int]]):
    pass


class Open(BaseModel, extra="allow"):
    a: int


class Row(msgspec.Struct):
    a: int


MODEL, TOLD = Model(name="n", key=SecretStr("s")), {"name": "n", "key": "<pydantic.types.SecretStr>"}
Pair = namedtuple("Pair", "left right")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, {"a": [1, 2.5, None, True, "é"]}),
        ((1, 2), [1, 2]),
        ({"client": Loud()}, {"client": f"<{__name__}.Loud>"}),
        ({Loud: 1, 5: 2, (1, "a"): 3, (1, "b"): 4}, {"<type>": 1, "5": 2, '[1,"a"]': 3, '[1,"b"]': 4}),
        (Point(1), {"x": 1}),
        (MODEL, TOLD),
        (
            Outer(model=MODEL, models={"a": [MODEL]}, point=Point(1)),
            {"model": TOLD, "models": {"a": [TOLD]}, "point": {"x": 1}, "twice": 2},
        ),
        (Numbers([1, 2]), {"root": [1, 2]}),
        (Open.model_validate({"a": 1, "b": Point(2)}), {"a": 1, "b": {"x": 2}}),
        (Row(3), {"a": 3}),
        (Pair(1, "b"), {"left": 1, "right": "b"}),
        (OrderedDict(a=Color.RED), {"a": "red"}),
        (b"12345", "<bytes: 5 bytes>"),
        ([MOMENT, ID, Decimal("1.50"), PurePosixPath("/a")], [MOMENT.isoformat(), str(ID), "1.50", "/a"]),
        ([1 << 70, 1 << 99_999], [1 << 70, "<int: 100,000 bits>"]),
        ([float("nan"), float("inf"), -float("inf")], ["NaN", "Infinity", "-Infinity"]),
        ("half \ud800", "half ?"),
        (open, "<builtin_function_or_method>"),
    ],
)
def test_a_value_is_told_as_json(value: Any, told: Any) -> None:
    assert msgspec.json.decode(snapshot(value)[0]) == told


def test_what_cannot_be_read_costs_nothing_beside_it() -> None:
    data, is_cut = snapshot({"query": "q", "mock": Mock(spec=str), "liar": Liar()})
    assert is_cut
    told = {"query": "q", "mock": "<unittest.mock.Mock>", "liar": f"<{__name__}.Liar>"}
    assert msgspec.json.decode(data) == told


def test_a_text_that_another_value_stands_for_is_counted_once() -> None:
    class Long(enum.Enum):
        A = "x" * (MOST_BYTES // 10)

    class Scalar:
        shape = ()

        def item(self) -> str:
            return Long.A.value

    Scalar.__module__ = "numpy"
    for value in (Long.A, Scalar()):
        data, is_cut = snapshot([value] * 8)
        assert not is_cut
        assert msgspec.json.decode(data) == [Long.A.value] * 8


def test_values_under_the_same_key_are_told_to_be_missing() -> None:
    data, is_cut = snapshot({Loud(): 1, Loud(): 2})
    assert is_cut
    assert msgspec.json.decode(data) == {f"<{__name__}.Loud>": 2}


def test_what_a_value_is_in_is_not_told_in_it_once_more() -> None:
    @dataclasses.dataclass
    class Tree:
        above: Any = None
        below: list[Any] = dataclasses.field(default_factory=list)

    root = Tree()
    root.below = [Tree(root) for _ in range(1000)]
    data, is_cut = snapshot(root)
    assert is_cut
    name = f"<{__name__}.{Tree.__qualname__}>"
    assert msgspec.json.decode(data) == {"above": None, "below": [{"above": name, "below": []}] * 1000}


def test_a_value_is_bounded_however_large_deep_or_circular_it_is() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    for value in (
        circle,
        deep,
        "x" * (3 * MOST_BYTES),
        {str(n): n for n in range(500_000)},
        [circle] * 9,
        [Loud()] * 500_000,
    ):
        data, is_cut = snapshot(value)
        assert is_cut
        assert len(data) < 2 * MOST_BYTES
        msgspec.json.decode(data)


def test_the_value_is_as_it_was_when_it_was_taken() -> None:
    value = {"items": [1]}
    data, _ = snapshot(value)
    value["items"].append(2)
    assert msgspec.json.decode(data) == {"items": [1]}

"""Outlines as they are stored, and looked at without being unpacked as a whole.

An outline is stored in parts, of which each has some thousands of rows: the text of each column by itself,
compressed, a tenth of what the columns take in memory. What is asked for is unpacked each time, in some
milliseconds for a part.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import msgspec

from runglass.outlines.outline import SLICE_ROWS, Outline, OutlineColumns, SpanMarks

PACKED_VERSION = 3
"""Goes up where the same run would have another outline than before, or its parts another form.

A migration then makes the outlines due again that are kept: else each is made anew when it is opened first.
"""
COLUMNS = {name: number for number, name in enumerate(OutlineColumns.__struct_fields__)}

_int_list = msgspec.json.Decoder(list[int]).decode
_cost_list = msgspec.json.Decoder(list[str | None]).decode
_columns_of = msgspec.msgpack.Decoder(list[bytes]).decode


class PackedHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of an outline that is packed. `nodes` is a digest of the nodes that it was made with."""

    version: int
    nodes: str
    seq: int
    latest_ms: int
    row_count: int
    names: list[str]
    cut: list[int]
    recorded: SpanMarks | None = None


def pack(outline: Outline, *, nodes: str) -> Iterator[bytes]:
    """The parts with the rows, in their order, and then the head; each takes some tens of milliseconds."""
    for first in range(0, outline.row_count, SLICE_ROWS):
        texts = (msgspec.json.encode(outline.values(name, first, SLICE_ROWS)) for name in COLUMNS)
        yield msgspec.msgpack.encode([zlib.compress(text) for text in texts])
    about: dict[str, Any] = {field.name: getattr(outline, field.name) for field in fields(Outline)}
    yield msgspec.json.encode(PackedHead(version=PACKED_VERSION, nodes=nodes, **about))


def unpack(head: bytes, parts: Sequence[bytes], *, nodes: str) -> Outline | None:
    """The outline that was packed; None where it was of another version, or with other nodes.

    Raises msgspec.MsgspecError, ValueError for parts that are none.
    """
    about = msgspec.json.decode(head)
    if about["version"] != PACKED_VERSION or about["nodes"] != nodes:
        return None
    return PackedOutline(msgspec.convert(about, PackedHead), parts)


def is_of_version_before(head: bytes) -> bool:
    """Whether an older program packed this one, as it may beside this program. Raises as `unpack` does."""
    version: int = msgspec.json.decode(head)["version"]
    return version < PACKED_VERSION


class PackedOutline(Outline):
    """An outline that stays packed."""

    def __init__(self, head: PackedHead, parts: Sequence[bytes]) -> None:
        super().__init__(**{field.name: getattr(head, field.name) for field in fields(Outline)})
        self._parts = [_columns_of(part) for part in parts]
        self._size_bytes = sum(map(len, parts))
        wanted = -(-head.row_count // SLICE_ROWS)
        if len(self._parts) != wanted or any(len(part) != len(COLUMNS) for part in self._parts):
            raise ValueError(f"a packed outline of {head.row_count} rows has {len(self._parts)} parts")

    @property
    def size_bytes(self) -> int:
        return 1000 + self._size_bytes + 200 * len(self.names) + 8 * len(self.cut)

    def values(self, column: str, first: int, count: int) -> list[Any]:
        stop = min(first + count, self.row_count)
        decode: Any = _cost_list if column == "cost" else _int_list
        found: list[Any] = []
        while first < stop:
            number, skipped = divmod(first, SLICE_ROWS)
            until = min(stop - number * SLICE_ROWS, SLICE_ROWS)
            found += decode(zlib.decompress(self._parts[number][COLUMNS[column]]))[skipped:until]
            first = (number + 1) * SLICE_ROWS
        return found

"""The timeline of a run: what was worst and what took longest, in each lane and bucket of time.

Lanes are the rows at the top of the outline. Each attempt is looked at once, however much time it covers, so
that the work is bounded by rows and buckets, and not by their product.
"""

from collections.abc import Iterator

import msgspec

from runglass.outlines.outline import NONE, SLICE_ROWS, STATUSES, Outline

LANES = 50
"""The rows at the top beyond these share the last lane."""


class Lane(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A row at the top of the outline, `row`, or several from that one on, as a strip of the timeline.

    `name` is that of its step, and None where there are several, which `row_count` says. For each bucket
    `worst` is a status and `longest` the row of an attempt, -1 where nothing went on.
    """

    row: int
    row_count: int
    name: str | None
    worst: list[int]
    longest: list[int]


class Timeline(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from", "bucket_ms": "bucketMs"}):
    """Buckets of `bucket_ms` milliseconds each, from `from_` to `to`, counted from the start of the run.

    `seq` is that of the outline whose rows these are.
    """

    seq: int
    from_: int
    to: int
    bucket_ms: int
    statuses: list[str]
    lanes: list[Lane]


class _Cover:
    """The best cover of each bucket of a lane.

    In `_levels[k]` what is at bucket `b` covers 2^k buckets from `b` on. Two entries are enough for any time,
    and `settle` hands down what there is to single buckets.
    """

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets
        self._levels: list[list[int]] = []

    def add(self, first: int, last: int, value: int) -> None:
        """Lets a value cover these buckets, except where there is a higher one."""
        level = (last - first + 1).bit_length() - 1
        while len(self._levels) <= level:
            self._levels.append([NONE] * (self._buckets - (1 << len(self._levels)) + 1))
        values = self._levels[level]
        if value > values[first]:
            values[first] = value
        other = last - (1 << level) + 1
        if value > values[other]:
            values[other] = value

    def settle(self) -> list[int]:
        """The highest value of each bucket."""
        for level in range(len(self._levels) - 1, 0, -1):
            below, half = self._levels[level - 1], 1 << (level - 1)
            for first, value in enumerate(self._levels[level]):
                if value > below[first]:
                    below[first] = value
                if value > below[first + half]:
                    below[first + half] = value
        return self._levels[0] if self._levels else [NONE] * self._buckets


_ROW_BITS = 32


def timeline(outline: Outline, *, from_ms: int, to_ms: int, buckets: int) -> Iterator[Timeline | None]:
    """Yields None between two slices of the work, and the timeline at the end.

    It has as many buckets as are asked for, or fewer, of whole milliseconds. What goes on reaches to its end.
    """
    bucket_ms = max(1, -(-(to_ms - from_ms) // buckets))
    buckets = -(-(to_ms - from_ms) // bucket_ms)
    to_ms = from_ms + buckets * bucket_ms
    tops: list[int] = []
    lanes: list[tuple[_Cover, _Cover]] = []
    for first in range(0, outline.row_count, SLICE_ROWS):
        # One row more tells whether the last one holds others.
        depths = [*outline.values("depth", first, SLICE_ROWS + 1), 0]
        columns = (outline.values(name, first, SLICE_ROWS) for name in ("status", "start", "end"))
        for row, (status, start, end) in enumerate(zip(*columns, strict=True), first):
            depth = depths[row - first]
            if not depth:
                tops.append(row)
                if len(lanes) < LANES:
                    lanes.append((_Cover(buckets), _Cover(buckets)))
            if start == NONE or depths[row - first + 1] > depth:
                continue
            until = to_ms if end == NONE else end
            if start >= to_ms or (until <= from_ms and start < from_ms):
                continue
            since = max(start, from_ms)
            begin = (since - from_ms) // bucket_ms
            stop = (max(min(until, to_ms) - 1, since) - from_ms) // bucket_ms
            worst, longest = lanes[-1]
            worst.add(begin, stop, status)
            # Of two that took as long, the first one.
            longest.add(begin, stop, (until - start << _ROW_BITS) + (1 << _ROW_BITS) - 1 - row)
        yield None
    made: list[Lane] = []
    for number, (worst, longest) in enumerate(lanes):
        count = len(tops) - LANES + 1 if number == LANES - 1 else 1
        row = tops[number]
        (name,) = outline.values("name", row, 1)
        made.append(
            Lane(
                row=row,
                row_count=count,
                name=outline.names[name] if count == 1 else None,
                worst=worst.settle(),
                longest=[
                    value if value == NONE else (1 << _ROW_BITS) - 1 - value % (1 << _ROW_BITS)
                    for value in longest.settle()
                ],
            )
        )
        yield None
    yield Timeline(
        seq=outline.seq,
        from_=from_ms,
        to=to_ms,
        bucket_ms=bucket_ms,
        statuses=list(STATUSES),
        lanes=made,
    )

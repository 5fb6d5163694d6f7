"""A run as trace events of Chrome, which Perfetto's viewer shows: slices that nest as the run's tree does.

On a track slices nest by their order, so what goes on side by side has tracks of its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush
from typing import Any

import msgspec

from runglass.log.trace import RunSummary, StepTrace
from runglass.outlines.outline import TreeRow
from runglass.run_files.gen_ai import model_name

_PROCESS = 1
_MAIN = 1
"""The number of the track of the run itself."""
_NEVER = 1 << 62

_Event = dict[str, Any]


@dataclass(slots=True)
class _Slice:
    """A slice that is open while what is inside of it comes; `free_ms` is where its last child ended."""

    track: int
    free_ms: int
    end: int | None
    is_apart: bool


class PerfettoWriter:
    """Writes one run. `rows` come in pre-order, each with the data of its attempt where it has one."""

    def __init__(self, run: RunSummary) -> None:
        self._run = run
        started = datetime.fromisoformat(run.started_at) if run.started_at is not None else None
        self._started_us = 0 if started is None else round(started.timestamp() * 1_000_000)
        self._open: list[_Slice] = []
        self._free: list[tuple[int, int]] = []
        """Tracks beside the main one that have no open slice: until when each is taken, and its number."""
        self._tracks = _MAIN
        self._hidden_depth: int | None = None

    def opening(self) -> bytes:
        """All that comes before the slices of rows."""
        run = self._run
        about = {"run": run.id, "flow": run.flow_slug, "version": run.version, "status": run.status}
        name = run.flow_slug or "run"
        end = None
        if run.completed_at is not None:
            # As rows count: the duration of a recorded run is rounded.
            ended_us = round(datetime.fromisoformat(run.completed_at).timestamp() * 1_000_000)
            end = max(0, ended_us - self._started_us) // 1000
        self._open.append(_Slice(_MAIN, 0, end, is_apart=False))
        events = [
            self._named("process_name", _MAIN, f"{name} {run.id}"),
            self._named("thread_name", _MAIN, "run"),
            self._begin(_MAIN, name, "run", 0, about),
        ]
        return b'{"displayTimeUnit":"ms","traceEvents":[\n' + b",\n".join(map(msgspec.json.encode, events))

    def rows(self, rows: Iterable[tuple[TreeRow, StepTrace | None]]) -> bytes:
        """The slices of rows."""
        events = (event for row, step in rows for event in self._of_row(row, step))
        return b"".join([b",\n" + msgspec.json.encode(event) for event in events])

    def closing(self) -> bytes:
        """All that comes behind the slices of rows."""
        events = [b",\n" + msgspec.json.encode(event) for event in self._close(0)]
        return b"".join(events) + b"\n]}\n"

    def _of_row(self, row: TreeRow, step: StepTrace | None) -> Iterator[_Event]:
        if self._hidden_depth is not None and row.depth > self._hidden_depth:
            return
        self._hidden_depth = None
        yield from self._close(row.depth + 1)
        if row.start is None:
            # Nothing inside of it was reached.
            self._hidden_depth = row.depth
            return
        parent = self._open[-1]
        track, is_apart = parent.track, False
        # Spans may outlive what they are in.
        outlives = parent.end is not None and (row.end is None or row.end > parent.end)
        if row.start < parent.free_ms or outlives:
            is_apart = True
            if self._free and self._free[0][0] <= row.start:
                track = heappop(self._free)[1]
            else:
                track = self._tracks = self._tracks + 1
                yield self._named("thread_name", track, f"side by side {track - _MAIN}")
        else:
            parent.free_ms = _NEVER if row.end is None else row.end
        self._open.append(_Slice(track, row.start, row.end, is_apart=is_apart))
        arguments: dict[str, Any] = {
            "status": row.status,
            "tokens": row.tokens or None,
            "costUsd": row.cost_usd,
        }
        if step is not None:
            error = step.error_context
            arguments |= {"attempt": step.attempt, "model": step.model_used}
            arguments |= {"error": error.get("code") if isinstance(error, dict) else None}
        yield self._begin(track, row.label, row.kind, row.start * 1000, arguments)
        if step is not None:
            yield from self._calls(track, row.start, row.end, step)

    def _calls(self, track: int, start: int, end: int | None, step: StepTrace) -> Iterator[_Event]:
        """The model calls of an attempt, one after the other and inside of it whatever the clocks said."""
        free_us = start * 1000
        for call in step.model_calls:
            start_us = free_us
            if call.started_at is not None:
                started = datetime.fromisoformat(call.started_at).timestamp() * 1_000_000
                start_us = max(free_us, round(started) - self._started_us)
            ended_us = start_us + (call.duration_ms or 0) * 1000
            if end is not None:
                start_us, ended_us = min(start_us, end * 1000), min(ended_us, end * 1000)
            arguments: dict[str, Any] = {
                "finishReason": call.finish_reason,
                "costUsd": call.cost_usd,
                "error": call.error_code,
            }
            if call.tokens is not None:
                arguments |= {"tokens": call.tokens.total}
            yield self._begin(track, f"chat {model_name(call)}", "model call", start_us, arguments)
            yield self._at("E", track, ended_us)
            free_us = ended_us

    def _close(self, depth: int) -> Iterator[_Event]:
        """Ends the open slices below so many; one that still goes on has no end."""
        while len(self._open) > depth:
            ended = self._open.pop()
            if ended.end is not None:
                yield self._at("E", ended.track, ended.end * 1000)
                if ended.is_apart:
                    heappush(self._free, (ended.end, ended.track))

    def _begin(self, track: int, name: str, kind: str, at_us: int, arguments: dict[str, Any]) -> _Event:
        known = {key: value for key, value in arguments.items() if value is not None}
        return {**self._at("B", track, at_us), "name": name, "cat": kind, "args": known}

    def _at(self, phase: str, track: int, at_us: int) -> _Event:
        return {"ph": phase, "pid": _PROCESS, "tid": track, "ts": self._started_us + at_us}

    def _named(self, what: str, track: int, name: str) -> _Event:
        return {"ph": "M", "pid": _PROCESS, "tid": track, "name": what, "args": {"name": name}}

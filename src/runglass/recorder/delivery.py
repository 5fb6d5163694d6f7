"""Sends steps from one thread: the user's code never waits for a server, and never hears of one that fails.

What waits is bounded in memory and, while the server is away, in a spool on disk. The server makes one step
of all states of a span, so what is sent twice is stored once, and batches need no numbers.

More than 300 lines: the state of what waits, from a step's end until the server, or the disk, has it.
"""

import atexit
import codecs
import gzip
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import NoneType
from typing import TYPE_CHECKING, Any

import msgspec

from runglass.client.core.connection import API_PATH, ServerConnection
from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import Answer, ConnectionLost, Outcome, backoff_s
from runglass.recorder.spans import (
    INPUT,
    MODES,
    OUTPUT,
    STEP_BYTES,
    OpenStep,
    SpanContent,
    heartbeat_of,
    lower,
    report,
    request_of,
    resource_of,
    span_of,
)
from runglass.recorder.spool import Spool
from runglass.wire.run_api import CaptureMode

if TYPE_CHECKING:
    from runglass.client.transport.blocking import SyncTransport

BATCH_BYTES, BATCH_STEPS = 1 << 20, 1000
GATHER_S = 0.1
"""So long the thread waits for more before it sends."""
BEATS = 3
"""So often within a lease the server hears that a step goes on."""
SPOOL_AFTER_S = 2.0
"""So long the server may be away before what waits is on disk, too."""
MOST_WAIT_S = 5.0
SETTLE_S = 5
"""So long after the end of a run a step may still begin in it that nobody knew of."""
TIMEOUT_S, EXIT_S, DURABLE_S = 30.0, 10.0, 30.0
ZIPPED_BYTES = 8 * 1024
CAPTURE_HEADER = "X-Runglass-Capture"
NOT_ALLOWED = "the server was away, and has not said that it keeps content"

Mask = Callable[[Any], Any]


class Delivery:
    """What a recorder sends, and where to. Threads may share it; a forked process begins anew."""

    def __init__(
        self,
        endpoint: ServerConnection,
        flow: str,
        *,
        release: str | None,
        environment: str | None,
        mask: Mask | None,
        spool: str | os.PathLike[str] | None,
        is_durable: bool,
        buffer_bytes: int,
        lease_s: int,
        exit_s: float = EXIT_S,
    ) -> None:
        root = endpoint.base_url.removesuffix(API_PATH)
        self.address = root
        self._endpoint = msgspec.structs.replace(endpoint, base_url=root)
        self._flow = flow
        self._labels = {"release": release, "environment": environment}
        self._mask = mask
        self._spool_folder = spool
        self._is_durable = is_durable
        self._buffer_bytes = buffer_bytes
        self.lease_s = lease_s
        """So long after this process was last heard of, its open steps have lost their writer."""
        self._exit_s = exit_s
        # Not in the thread: a process forked meanwhile would have half a module for ever.
        from runglass.client.transport.blocking import SyncTransport
        from runglass.redact import Redactor

        codecs.lookup("idna")
        self._new_transport, self._redactor = SyncTransport, Redactor()
        self._spool: Spool | None = None
        self._begin_process()
        # Before functions of the user's are registered, which are called first and may have steps.
        atexit.register(self.close, exit_s)
        if self._spool is not None and not self._spool.is_drained:
            # An earlier process has left something.
            self._start()
        if hasattr(os, "register_at_fork"):
            share, begin = weakref.WeakMethod(self._share_open), weakref.WeakMethod(self._begin_process)
            os.register_at_fork(
                before=lambda: None if (known := share()) is None else known(),
                after_in_child=lambda: None if (known := begin()) is None else known(),
            )

    def _begin_process(self) -> None:
        """Starts with nothing, in a new process too: what waits in its parent is sent by that."""
        if self._spool is not None:
            self._spool.let_go()
        self._spool = None if self._spool_folder is None else Spool(self._spool_folder, self._endpoint)
        self._resource = resource_of(self._flow, os.urandom(8).hex(), **self._labels)
        # One thread may come here twice: a collected generator ends its step wherever it is.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        # Not an event, whose lock is not reentrant: a collected generator may wake the thread from anywhere.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._transport: SyncTransport | None = None
        self._open: dict[OpenStep, None] = {}
        self._unbegun: dict[OpenStep, None] = {}
        """First steps of traces for which there was no room: they begin once there is."""
        self._waiting: dict[OpenStep, None] = {}
        """Ended, or to be told of again, and not stored yet."""
        self._bytes = 0
        self._tickets = self._stored_tickets = 0
        self._is_asleep = self._is_closing = self._is_refused = self._has_lost = False
        self._has_evicted = self._has_dropped = False
        self._failures = 0
        self._away_since: float | None = None
        self._retry_at = 0.0
        self._beat_at = time.monotonic() + self.lease_s / BEATS
        self._mode: CaptureMode = "off"
        """What the server keeps of this flow's content, as far as it has said."""

    def _share_open(self) -> None:
        """A process that is forked now may go on with what is open."""
        for step in [*self._open, *self._unbegun]:
            step.top.is_shared = True

    # In the threads of the user's code

    def begin(self, step: OpenStep) -> None:
        """Has a step that begins, which is sent at once only where the recorder is durable."""
        step.size = _size_of(step)
        with self._lock:
            if self._is_refused or self._is_closing:
                return
            # Before what is inside of them: a run of which only that is known has not failed.
            self._begin_late()
            if self._bytes > self._buffer_bytes:
                if step is step.top:
                    self._unbegun[step], self._has_dropped = None, True
                else:
                    self._drop(step.top, 1, step.size - STEP_BYTES)
                return
            self._open[step] = None
            self._bytes += step.size
        self._tell()

    def _begin_late(self) -> None:
        """Begins what could not begin before, as far as there is room now."""
        while self._unbegun and self._bytes <= self._buffer_bytes:
            step = next(iter(self._unbegun))
            del self._unbegun[step]
            self._open[step] = None
            self._bytes += step.size

    def end(self, step: OpenStep) -> None:
        """Has a step that has ended."""
        size = _size_of(step)
        with self._lock:
            self._begin_late()
            self._unbegun.pop(step, None)
            if step not in self._open:
                # Not begun, dropped, or of the process that this one was forked from.
                return
            del self._open[step]
            self._waiting[step] = None
            if self._bytes - step.size + size > self._buffer_bytes:
                self._leave_out(step, "were left out: the buffer of the sender was full")
                size = STEP_BYTES
            self._bytes += size - step.size
            step.size, step.is_spooled = size, False
        self._tell()

    def flush(self, timeout: float) -> bool:
        """Waits until all that was recorded before is stored, on the server or on disk where it is away.

        False where it is not within `timeout`, or where the server has refused some since the last time.
        """
        is_stored = self._wait(timeout)
        has_lost, self._has_lost = self._has_lost, False
        return is_stored and not has_lost

    def _wait(self, timeout: float) -> bool:
        with self._lock:
            if self._is_refused or self._is_closing:
                return False
            self._tickets = ticket = self._tickets + 1
            self._retry_at = 0.0
        self._start()
        self._wake.put(None)
        with self._changed:
            self._changed.wait_for(lambda: self._stored_tickets >= ticket or self._is_refused, timeout)
            return self._stored_tickets >= ticket

    def close(self, timeout: float) -> None:
        """Sends what waits, or writes it to disk, and ends the thread."""
        with self._lock:
            was_closing, self._is_closing = self._is_closing, True
        atexit.unregister(self.close)
        if was_closing or self._thread is None:
            return
        self._wake.put(None)
        self._thread.join(timeout)
        # What hangs in a request and arrives all the same is stored once.
        _, steps = self._taken()
        if steps and not self._write_down(steps) and not self._is_refused:
            report("steps that the server has not taken are lost with the end of the program", len(steps))
        if self._spool is not None:
            self._spool.let_go()

    def _tell(self) -> None:
        """Has the thread look; where the recorder is durable, waits until all is stored."""
        if self._is_durable:
            self._wait(DURABLE_S)
            return
        if self._thread is None:
            self._start()
        if self._is_asleep:
            self._wake.put(None)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._is_closing:
                return
            thread = threading.Thread(target=self._run, name="runglass-recorder", daemon=True)
            thread.start()
            self._thread = thread
        # The functions of `atexit` are not called in processes of `multiprocessing`, and its own are.
        if (util := sys.modules.get("multiprocessing.util")) is not None:
            util.Finalize(None, self.close, args=(self._exit_s,), exitpriority=10)

    def _drop(self, top: OpenStep, steps: int, size: int) -> None:
        """Counts what is not sent, with the first step of its trace, which is sent with that."""
        top.dropped = (top.dropped[0] + steps, top.dropped[1] + size)
        top.is_spooled = False
        # Not logged here: whoever logs may wait for this lock, and have that of the log.
        self._has_dropped = True
        if top.end_ns and top not in self._waiting:
            top.size = STEP_BYTES
            self._bytes += STEP_BYTES
            self._waiting[top] = None

    def _leave_out(self, step: OpenStep, reason: str) -> None:
        told = _without(step.content, reason)
        step.facts |= told.facts
        for note in told.notes:
            step.note(note)
        size = sum(map(len, step.content.values()))
        step.content = {}
        if size:
            self._drop(step.top, 0, size)

    # In the thread

    def _run(self) -> None:
        while True:
            try:
                self._rest()
                is_last = self._is_closing
                self._send_all()
            except Exception as error:
                is_last = self._is_closing
                report("sending what was recorded has failed", error)
                self._retry_at = time.monotonic() + MOST_WAIT_S
            if is_last or self._is_refused:
                break
        if self._transport is not None:
            self._transport.close()

    def _rest(self) -> None:
        """Waits until something is to be sent and, unless somebody waits for that, until more has come."""
        while not self._is_closing:
            now = time.monotonic()
            is_due = self._has_news() or (bool(self._open) and now >= self._beat_at)
            if is_due and now >= self._retry_at:
                self._sleep(GATHER_S if self._tickets == self._stored_tickets else 0)
                return
            self._is_asleep = not is_due
            # Looked at once more: who has come before that has not seen that it is asleep.
            if is_due:
                self._sleep(min(self._retry_at - now, GATHER_S))
                if self._bytes > self._buffer_bytes / 2:
                    self._spill()
            elif not self._has_news() and not self._is_closing:
                self._sleep(self._beat_at - now if self._open else None)
            self._is_asleep = False

    def _sleep(self, timeout: float | None) -> None:
        """Waits until the thread is woken, or was meanwhile."""
        with suppress(Empty):
            self._wake.get(timeout=None if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX))
        while not self._wake.empty():
            self._wake.get()

    def _has_news(self) -> bool:
        if self._waiting or self._tickets != self._stored_tickets:
            return True
        if self._spool is not None and not self._spool.is_drained:
            return True
        if self._unbegun and self._bytes <= self._buffer_bytes:
            return True
        return any(not step.is_sent for step in list(self._open))

    def _taken(self) -> tuple[int, list[OpenStep]]:
        """All that is to be sent, and who waits for that."""
        with self._lock:
            self._begin_late()
            begun = [step for step in list(self._open) if not step.is_sent]
            # The first step of a trace comes last: where it is sent, all that it had inside is there.
            ended = sorted(self._waiting, key=lambda step: step is step.top)
            return self._tickets, [*ended, *begun]

    def _send_all(self) -> None:
        if self._has_dropped:
            report("the recorder has had to drop steps or content: the server is away, or too slow")
        beating = {step.trace_id: step for step in list(self._open) if step.is_sent}
        ticket, steps = self._taken()
        for some in _batches(steps):
            if not self._send(some):
                return
        if beating and time.monotonic() >= self._beat_at:
            beats = [heartbeat_of(step, self.lease_s) for step in beating.values()]
            if self._post(request_of(self._resource, beats)) is None:
                return
            self._beat_at = time.monotonic() + self.lease_s / BEATS
        if self._spool is not None and not self._spool.is_drained:
            if not self._has_evicted:
                self._spool.drop_own()
            for body in self._spool.bodies():
                answer = self._post(body)
                if answer is None or self._is_refused:
                    return
                if answer.status == 413:
                    self._has_lost = True
                    report("the server does not take a part of the spool, which is dropped", len(body))
            self._spool.is_drained, self._has_evicted = True, False
        self._note_stored(ticket)

    def _send(self, steps: Sequence[OpenStep]) -> bool:
        """Sends the steps, in parts where they are too much; False where the server is away."""
        told = [(step, step.end_ns, step.dropped) for step in steps]
        answer = self._post(request_of(self._resource, self._spans(steps)))
        if answer is None:
            return False
        mode: Any = answer.headers.get(CAPTURE_HEADER.lower())
        # Of runs that were begun elsewhere alone it would say nothing of the others.
        if mode in MODES and not all(step.top.parent_id for step in steps):
            self._mode = mode
        if answer.status == 413:
            if len(steps) > 1:
                return self._send(steps[: len(steps) // 2]) and self._send(steps[len(steps) // 2 :])
            if steps[0].content:
                with self._lock:
                    self._leave_out(
                        steps[0], "were left out: the server does not take as much in one request"
                    )
                return self._send(steps)
            self._has_lost = True
            report("the server does not take a step, not even without its content")
        with self._lock:
            for step, end_ns, dropped in told:
                step.is_sent = True
                if end_ns and step.dropped == dropped and self._waiting.pop(step, self) is None:
                    self._bytes -= step.size
        return True

    def _spans(self, steps: Iterable[OpenStep], *, is_spool: bool = False) -> list[dict[str, Any]]:
        spans = []
        busy = {step.top for step in list(self._open)}
        # What the spool alone has is sent later than what is in memory, and in its own order.
        knows_all = is_spool or not self._has_evicted
        for step in steps:
            is_last = knows_all and step is step.top and step not in busy
            is_last = is_last and not (step.parent_id or step.is_shared)
            try:
                mode = step.capture
                if is_spool:
                    # What a run keeps that was begun elsewhere is not known here.
                    mode = lower(mode, "off" if step.top.parent_id else self._mode)
                kept = self._content(step, mode, is_spool=is_spool)
                spans.append(span_of(step, kept, self.lease_s, SETTLE_S if is_last else None))
            except Exception as error:
                # Nothing else is to wait for it for ever.
                report("a step cannot be sent", error)
        return spans

    def _post(self, body: bytes) -> Answer | None:
        """The answer of the server; None where the request is to be sent again."""
        if self._transport is None:
            self._transport = self._new_transport(self._endpoint)
        headers = {"Content-Type": "application/json", CAPTURE_HEADER: "?"}
        if len(body) > ZIPPED_BYTES:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1)
        call = RequestSpec(
            method="POST", path="/v1/traces", answer=NoneType, headers=headers, body=body, sets_state=True
        )
        outcome = self._transport.outcome(call, timeout=TIMEOUT_S)
        if isinstance(outcome, ConnectionLost) or outcome.status == 429 or outcome.status >= 500:
            self._go_away(outcome)
            return None
        self._failures, self._away_since = 0, None
        if outcome.status == 200:
            if b"rejectedSpans" in outcome.body:
                self._has_lost = True
                report("the server has rejected steps", outcome.excerpt)
        elif outcome.status in (401, 403):
            report(f"nothing is recorded any more: {self.address} refuses the key", outcome.excerpt)
            with self._changed:
                self._is_refused = True
                self._open.clear()
                self._unbegun.clear()
                self._waiting.clear()
                self._changed.notify_all()
        elif outcome.status != 413:
            self._has_lost = True
            what = f"{self.address} refuses what was recorded, with status {outcome.status}"
            report(what, outcome.excerpt)
        return outcome

    def _go_away(self, outcome: Outcome) -> None:
        """Waits a while before the next request, and has what waits on disk, too, once that takes long."""
        self._failures += 1
        now = time.monotonic()
        asked_s = outcome.retry_after_s if isinstance(outcome, Answer) else None
        # A server that is back waits for no longer than the lease until it hears of steps that go on.
        most_s = min(MOST_WAIT_S, self.lease_s / BEATS)
        self._retry_at = now + max(backoff_s(self._failures, most_s=most_s), asked_s or 0.0)
        if self._away_since is None:
            self._away_since = now
        is_urgent = self._is_closing or self._tickets != self._stored_tickets
        if is_urgent or now - self._away_since >= SPOOL_AFTER_S:
            place = "memory" if self._spool is None else str(self._spool_folder)
            why = outcome.reason if isinstance(outcome, ConnectionLost) else f"status {outcome.status}"
            report(f"what is recorded waits in {place} until the server takes it", why)
            self._spill()

    def _spill(self) -> None:
        """Writes what waits to the spool, if there is one, and leaves it to that where memory is short."""
        if self._spool is None:
            return
        ticket, steps = self._taken()
        if self._write_down(steps):
            self._note_stored(ticket)
        if self._bytes > self._buffer_bytes / 2:
            with self._lock:
                for step in [step for step in list(self._waiting) if step.is_spooled]:
                    self._has_evicted = True
                    del self._waiting[step]
                    self._bytes -= step.size

    def _write_down(self, steps: Iterable[OpenStep]) -> bool:
        """Writes the states to the spool that are not in it; whether all are."""
        if self._spool is None:
            return False
        for some in _batches([step for step in steps if not step.is_spooled]):
            told = [(step, step.end_ns) for step in some]
            if not self._spool.write(request_of(self._resource, self._spans(some, is_spool=True))):
                return False
            for step, end_ns in told:
                step.is_spooled = step.end_ns == end_ns
        return True

    def _note_stored(self, ticket: int) -> None:
        with self._changed:
            if not self._is_refused:
                self._stored_tickets = max(self._stored_tickets, ticket)
            self._changed.notify_all()

    def _content(self, step: OpenStep, mode: CaptureMode, *, is_spool: bool = False) -> SpanContent:
        """What the mode leaves of the step's content, masked, and what is told of the rest."""
        content, message = dict(step.content), "" if step.error is None else step.error[1]
        if mode not in ("full", "redacted"):
            is_missing = is_spool and step.capture in ("full", "redacted")
            return _without(content, f"are not in the spool: {NOT_ALLOWED}" if is_missing else "")
        try:
            if self._mask is not None:
                content = _changed(content, self._mask)
                told = self._mask(message) if message else None
                message = "" if told is None else str(told)
            if mode == "redacted" and (is_spool or step.capture == "redacted"):
                redact = self._redactor.redact
                content = _changed(content, redact)
                message = self._redactor.text(message)
        except Exception as error:
            report("content could not be masked or redacted, and is left out", error)
            reason = f"were left out: it could not be masked or redacted ({type(error).__name__})"
            return _without(content, reason)
        return SpanContent(content, message=message)


def _size_of(step: OpenStep) -> int:
    return STEP_BYTES + sum(map(len, step.content.values()))


def _batches(steps: Sequence[OpenStep]) -> Iterable[list[OpenStep]]:
    batch: list[OpenStep] = []
    size = 0
    for step in steps:
        batch.append(step)
        size += step.size
        if size >= BATCH_BYTES or len(batch) >= BATCH_STEPS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _without(content: Mapping[str, bytes | str], reason: str) -> SpanContent:
    """No content, and how much there was."""
    size = sum(map(len, content.values()))
    facts = {f"{name}_size_bytes": len(content[name]) for name in (INPUT, OUTPUT) if name in content}
    note = f"{size:,} bytes of content {reason}"
    return SpanContent({}, facts, (note,) if reason and size else ())


def _changed(content: Mapping[str, bytes | str], change: Callable[[Any], Any]) -> dict[str, bytes | str]:
    """The content as it is changed, without what is nothing then."""
    changed: dict[str, bytes | str] = {}
    for name, value in content.items():
        was_text = isinstance(value, str)
        told = change(value if was_text else msgspec.json.decode(value))
        if told is not None:
            is_text = was_text or (isinstance(told, str) and name not in (INPUT, OUTPUT))
            changed[name] = str(told) if is_text else msgspec.json.encode(told)
    return changed

"""Two traces, aligned attempt by attempt: which attempts are in both, and which of them differ.

An attempt is read without its content, of which a hash is kept: two long traces fit into memory so, and
content is read again only where it differs. Content that one run kept and the other did not is no difference.
What differs in an attempt is for `attempt_diff.py`. No I/O.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from runglass.diff.model_calls import NOT_KEPT, CallsDigest, StoredCall, calls_differ, digests_of
from runglass.log.trace import TokenBreakdown
from runglass.outlines.builder import Node


class _StoredAttempt(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    step_id: str
    attempt: int = 1
    loop_path: tuple[int, ...] | None = None
    status: str = "running"
    duration_ms: int | None = None
    model_used: str | None = None
    finish_reason: str | None = None
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    input_size_bytes: int | None = None
    output_size_bytes: int | None = None
    input_context: msgspec.Raw = msgspec.Raw()
    output_context: msgspec.Raw = msgspec.Raw()
    error_context: msgspec.Raw = msgspec.Raw()
    model_calls: tuple[StoredCall, ...] = ()
    span_id: str | None = None
    parent_span_id: str | None = None
    name: str | None = None
    kind: str | None = None
    start_time_unix_nano: str | None = None


_stored = msgspec.json.Decoder(_StoredAttempt)


class SpanPlace(NamedTuple):
    """What places a span in its tree."""

    id: str
    parent_id: str | None
    name: str | None
    kind: str | None
    start_time_unix_nano: str | None


class AttemptDigest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An attempt as it is compared: its content as hashes, None where none was kept.

    `position` is that of its step in the store. `span` is there for one of a recorded run.
    """

    position: int
    step_id: str
    loop_path: tuple[int, ...]
    attempt: int
    status: str
    model_used: str | None
    finish_reason: str | None
    tokens: TokenBreakdown | None
    cost_usd: str | None
    duration_ms: int | None
    input_size_bytes: int | None
    output_size_bytes: int | None
    input: int | None
    output: int | None
    error: int | None
    requests: CallsDigest | None
    responses: CallsDigest | None
    span: SpanPlace | None = None


class AttemptContent(NamedTuple):
    """Input, output and error of an attempt as JSON, None where none was kept, and its model calls."""

    input: bytes | None
    output: bytes | None
    error: bytes | None
    calls: tuple[StoredCall, ...] = ()


def read_digest(position: int, data: bytes, texts: dict[str, str]) -> AttemptDigest:
    """The digest of a StepTrace in JSON. Raises msgspec.DecodeError.

    `texts` are those of other attempts, so that equal ones are in memory once.
    """
    step = _stored.decode(data)
    content = _content(step)
    requests, responses = digests_of(content.calls)
    return AttemptDigest(
        position=position,
        step_id=texts.setdefault(step.step_id, step.step_id),
        loop_path=step.loop_path or (),
        attempt=step.attempt,
        status=texts.setdefault(step.status, step.status),
        model_used=step.model_used and texts.setdefault(step.model_used, step.model_used),
        finish_reason=step.finish_reason and texts.setdefault(step.finish_reason, step.finish_reason),
        tokens=step.tokens,
        cost_usd=step.cost_usd,
        duration_ms=step.duration_ms,
        input_size_bytes=step.input_size_bytes,
        output_size_bytes=step.output_size_bytes,
        input=None if content.input is None else hash(content.input),
        output=None if content.output is None else hash(content.output),
        error=None if content.error is None else hash(content.error),
        requests=requests,
        responses=responses,
        span=None
        if step.span_id is None
        else SpanPlace(step.span_id, step.parent_span_id, step.name, step.kind, step.start_time_unix_nano),
    )


def read_content(data: bytes) -> AttemptContent:
    """The content in a StepTrace in JSON. Raises msgspec.DecodeError."""
    return _content(_stored.decode(data))


def _content(step: _StoredAttempt) -> AttemptContent:
    parts = (bytes(step.input_context), bytes(step.output_context), bytes(step.error_context))
    kept = (None if part in NOT_KEPT else part for part in parts)
    return AttemptContent._make((*kept, step.model_calls))


class AttemptPair(NamedTuple):
    """An attempt of the first run, and that of the second with the same address; None where there is none."""

    a: AttemptDigest | None
    b: AttemptDigest | None

    @property
    def one(self) -> AttemptDigest:
        """One of the two, for the address that both have."""
        found = self.b if self.a is None else self.a
        assert found is not None
        return found

    @property
    def differs(self) -> bool:
        """Whether there is a difference but for the duration, as far as hashes and sizes tell."""
        a, b = self
        if a is None or b is None or self.content_differs:
            return True
        return (
            (a.status, a.model_used, a.finish_reason, a.tokens, a.cost_usd)
            != (b.status, b.model_used, b.finish_reason, b.tokens, b.cost_usd)
            or differ_if_known(a.input_size_bytes, b.input_size_bytes)
            or differ_if_known(a.output_size_bytes, b.output_size_bytes)
        )

    @property
    def content_differs(self) -> bool:
        """Whether the content is needed to say in what the two differ."""
        a, b = self
        if a is None or b is None:
            return False
        return (
            differ_if_known(a.input, b.input)
            or differ_if_known(a.output, b.output)
            or a.error != b.error
            or calls_differ(a.requests, b.requests)
            or calls_differ(a.responses, b.responses)
        )

    @property
    def is_size_only(self) -> bool:
        """Whether both are there, and input or output of one was not kept, so that sizes alone can tell."""
        a, b = self
        if a is None or b is None or "skipped" in (a.status, b.status):
            return False
        ended = a.status == b.status == "completed"
        return None in (a.input, b.input) or (ended and None in (a.output, b.output))


def differ_if_known(a: int | None, b: int | None) -> bool:
    """Whether both are known, and not equal."""
    return a is not None and b is not None and a != b


class StepLocation(NamedTuple):
    """A step, and the ids of the loops around it, outermost first."""

    step_id: str
    loops: tuple[str, ...] = ()


def step_locations(nodes: Sequence[Node]) -> list[StepLocation]:
    """The steps among the nodes of a tree, each of which stands behind its parent."""
    found: list[StepLocation] = []
    inside: list[tuple[str, ...]] = []
    for node in nodes:
        loops = inside[node.parent] if node.parent >= 0 else ()
        is_loop = node.kind == "loop"
        inside.append((*loops, node.id or node.name) if is_loop else loops)
        if is_loop or node.id is not None:
            found.append(StepLocation(node.id or node.name, loops))
    return found


class FlowOrder:
    """Where the attempts of runs stand, by the locations of steps in the flows that they are of.

    Steps that only a later flow has stand behind the one that is before them there.
    """

    def __init__(self, *flows: Sequence[StepLocation]) -> None:
        order: list[str] = []
        for flow in flows:
            known, anchor = set(order), None
            following: dict[str | None, list[str]] = {}
            for step_id in dict.fromkeys(location.step_id for location in flow):
                if step_id in known:
                    anchor = step_id
                else:
                    following.setdefault(anchor, []).append(step_id)
            before, order = order, following.get(None, []).copy()
            for step_id in before:
                order += [step_id, *following.get(step_id, ())]
        self._numbers = {step_id: number for number, step_id in enumerate(order)}
        self._loops: dict[str, list[tuple[str, ...]]] = {}
        for location in chain.from_iterable(flows):
            self._loops.setdefault(location.step_id, []).append(location.loops)

    def key(self, step_id: str, loop_path: Sequence[int]) -> tuple[int, ...]:
        """What to sort a step of an iteration by. Steps that no flow has come last."""
        number = self._numbers.get(step_id, len(self._numbers))
        for loops in self._loops.get(step_id, ()):
            if len(loops) == len(loop_path):
                numbers = [self._numbers[loop] for loop in loops]
                return (*chain.from_iterable(zip(numbers, loop_path, strict=True)), number)
        return (number, *loop_path)


def align(
    a: Iterable[AttemptDigest],
    b: Iterable[AttemptDigest],
    *,
    order: FlowOrder,
    a_is_whole: bool = True,
    b_is_whole: bool = True,
) -> list[AttemptPair]:
    """The attempts of two runs, paired by step, iteration and number, in the order of the flow.

    Of a run that is not here as a whole nobody knows what it does not have: where `a_is_whole` is false, an
    attempt of `b` alone is left out, and the other way round.
    """
    left = {_address(attempt): attempt for attempt in a}
    pairs = []
    for attempt in b:
        other = left.pop(_address(attempt), None)
        if other is not None or a_is_whole:
            pairs.append(AttemptPair(other, attempt))
    if b_is_whole:
        pairs += [AttemptPair(attempt, None) for attempt in left.values()]
    pairs.sort(key=lambda pair: (order.key(pair.one.step_id, pair.one.loop_path), pair.one.attempt))
    return pairs


def _address(attempt: AttemptDigest) -> tuple[str, tuple[int, ...], int]:
    return attempt.step_id, attempt.loop_path, attempt.attempt

"""Two states of one span become one, whichever came first and however often each comes.

The rule of each field is in `docs/spec/recording.md`. Each is a join: commutative, associative, idempotent.
Knows no dialect: a state is complete in itself before it comes here.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from runglass.log.span_state import SpanState
from runglass.log.trace import ModelCall, TokenBreakdown
from runglass.support.lazy_json import json_bytes

Struct = TypeVar("Struct", bound=msgspec.Struct)
Join = Callable[[Any, Any], Any]

_KINDS = ("guardrail", "llm", "embedding", "retrieval", "tool", "agent", "chain", "code", "other")
_STATUSES = ("error", "ok", "unset")
_JSON = frozenset(
    ("attributes", "error", "events", "input", "links", "output", "request", "resource", "response")
)

MOST_LIST_BYTES = 1 << 20
"""Of events, links and messages that come bit by bit: the whole state is written anew with each of them."""

_encode = msgspec.json.encode
_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list_of = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Dated(msgspec.Struct, gc=False):
    at: str | int | None = None


def merge(known: SpanState | None, new: SpanState) -> SpanState:
    """All that both say of a span; `known` itself where `new` adds nothing to it."""
    if known is None:
        return new
    changes = _changes(known, new, _OF_SPAN)
    for name in ("events", "links"):
        if name in changes and len(bytes(changes[name])) > MOST_LIST_BYTES:
            before = [_json(each, name) or b"" for each in (known, new)]
            _keep(changes, known, name, _first_items(bytes(changes[name]), before), before[0])
    calls = changes.get("model_calls", known.model_calls)
    for name in ("tokens", "cost_usd") if changes and calls else ():
        # What a call has used is what its span has used.
        if (used := getattr(calls[0], name)) is not None:
            changes[name] = used
            if used == getattr(known, name):
                del changes[name]
    return replace(known, **changes) if changes else known


def _changes(known: Any, new: Any, rules: Iterable[tuple[str, Join, bool]]) -> dict[str, Any]:
    """The fields of `known` that `new` changes, each with its value."""
    changes = {}
    for name, join, is_json in rules:
        if not is_json:
            one, other = getattr(known, name), getattr(new, name)
        else:
            one, other = _json(known, name), _json(new, name)
        # Of calls it is their JSON that counts: for Python 1 is the same as true.
        if other is None or (one == other and join is not _calls):
            continue
        joined = other if one is None else join(one, other)
        if joined is not one and (joined != one or join is _calls):
            changes[name] = msgspec.Raw(joined) if is_json else joined
    return changes


def _json(owner: Any, name: str) -> bytes | None:
    value: Any = json_bytes(owner, name)
    return None if value is None else bytes(value)


def _larger(one: Any, other: Any) -> Any:
    """The one with the longer JSON text; of two equally long ones the one that is later in byte order."""
    return max(one, other, key=lambda value: (len(text := _text(value)), text))


def _text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else _encode(value)


def _least(key: Callable[[Any], Any]) -> Join:
    return lambda one, other: min(one, other, key=key)


def _most(key: Callable[[Any], Any]) -> Join:
    return lambda one, other: max(one, other, key=key)


def _all(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other})) if one and other else one or other


def _members(one: bytes, other: bytes, join_of: Callable[[str], Join] = lambda _: _larger) -> bytes:
    """Each member of both objects."""
    if one[:1] != b"{" or other[:1] != b"{":
        return bytes(_larger(one, other))
    mine, theirs = (
        {name: bytes(value) for name, value in _members_of(object).items()} for object in (one, other)
    )
    joined = mine | {
        name: join_of(name)(mine[name], value) if name in mine else value for name, value in theirs.items()
    }
    if joined == mine:
        return one
    return _encode({name: msgspec.Raw(joined[name]) for name in sorted(joined)})


def _items(value: bytes) -> list[bytes]:
    return list(map(bytes, _list_of(value)))


def _by_time(one: bytes, other: bytes) -> bytes:
    """The items of both lists, each once."""
    both: set[bytes] = {*_items(one), *_items(other)}
    ordered = sorted(both, key=lambda item: (_time_of(item) or "", item))
    return b"[%b]" % b",".join(ordered)


def _keep(changes: dict[str, Any], known: Any, name: str, kept: bytes, before: bytes) -> None:
    """Has `kept` as the change of a field that was too large."""
    changes |= {"truncated": True} if not known.truncated else {}
    changes[name] = msgspec.Raw(kept)
    if kept == before:
        del changes[name]


def _first_items(value: bytes, before: Sequence[bytes]) -> bytes:
    """As many of the first items as fit: the same whatever order all of them came in."""
    limit_bytes = max(MOST_LIST_BYTES, *map(len, before))
    kept = []
    for item in _items(value):
        limit_bytes -= len(item) + 1
        if limit_bytes <= 0:
            break
        kept.append(item)
    return b"[%b]" % b",".join(kept)


def _time_of(item: bytes) -> str | None:
    try:
        at = msgspec.json.decode(item, type=_Dated).at
    except msgspec.ValidationError:
        return None
    # Nanoseconds, in the order of numbers.
    return None if at is None else str(at).zfill(20)


def _messages(one: bytes, other: bytes) -> bytes:
    """A list that came as one, or all messages that came one by one, which have a time."""
    if one[:1] == other[:1] == b"[":
        is_one_by_one = [all(map(_time_of, _items(each))) for each in (one, other)]
        if all(is_one_by_one):
            return _by_time(one, other)
        if any(is_one_by_one):
            return other if is_one_by_one[0] else one
    return bytes(_larger(one, other))


def _request(one: bytes, other: bytes) -> bytes:
    return _members(one, other, lambda name: _messages if name == "messages" else _larger)


def _tokens(one: TokenBreakdown, other: TokenBreakdown) -> TokenBreakdown:
    prompt, completion = max(one.prompt, other.prompt), max(one.completion, other.completion)
    return TokenBreakdown(prompt, completion, max(one.total, other.total, prompt + completion))


def _call(one: ModelCall, other: ModelCall) -> ModelCall:
    changes = _changes(one, other, _OF_CALL)
    if len(bytes(changes.get("request", b""))) > MOST_LIST_BYTES:
        before = [_json(each, "request") or b"{}" for each in (one, other)]
        lists = [bytes(_members_of(each).get("messages", b"")) for each in before]
        members = _members_of(changes["request"])
        if len(told := bytes(members.get("messages", b""))) > max(MOST_LIST_BYTES, *map(len, lists)):
            members["messages"] = msgspec.Raw(_first_items(told, lists))
            _keep(changes, one, "request", _encode(members), before[0])
    # What the sender tells, of which ours is beside it, before what we have worked out; then the larger one.
    paid = max(one, other, key=lambda call: (call.list_cost_usd is not None, *_amounts(call)))
    if (paid.cost_usd, paid.list_cost_usd) != (one.cost_usd, one.list_cost_usd):
        changes |= {"cost_usd": paid.cost_usd, "list_cost_usd": paid.list_cost_usd}
    merged = replace(one, **changes) if changes else one
    if (tokens := merged.tokens) is not None:
        # The parts of two states that contradict each other can be more than each whole.
        prompt = max(tokens.prompt, (merged.cached_tokens or 0) + (merged.cache_write_tokens or 0))
        completion = max(tokens.completion, merged.reasoning_tokens or 0)
        if (prompt, completion) != (tokens.prompt, tokens.completion):
            tokens = TokenBreakdown(prompt, completion, max(tokens.total, prompt + completion))
            merged = replace(merged, tokens=tokens)
    unknown = None
    if tokens is None and "bad_usage" in (one.cost_unknown, other.cost_unknown):
        unknown = "bad_usage"
    elif merged.cost_usd is None:
        reasons = {one.cost_unknown, other.cost_unknown}
        unknown = "no_price" if "no_price" in reasons else None
        if tokens is None and "no_usage" in reasons:
            unknown = "no_usage"
    return merged if unknown == merged.cost_unknown else replace(merged, cost_unknown=unknown)


def _amounts(call: ModelCall) -> tuple[Decimal, Decimal, bytes]:
    costs = call.cost_usd, call.list_cost_usd
    one, other = (Decimal(-1) if cost is None else Decimal(cost) for cost in costs)
    return one, other, _encode(costs)


def _calls(one: tuple[ModelCall, ...], other: tuple[ModelCall, ...]) -> tuple[ModelCall, ...]:
    if not one or not other:
        return one or other
    call = _call(one[0], other[0])
    return one if call is one[0] else (call,)


def _rules(
    cls: type[msgspec.Struct], rules: dict[str, Join], *, apart: Iterable[str]
) -> list[tuple[str, Join, bool]]:
    """The rule of each field that has no way of its own, and whether its value is JSON."""
    fields = [name for name in cls.__struct_fields__ if name not in apart]
    return [(name, rules.get(name, _larger), name in _JSON) for name in fields]


_OF_CALL = _rules(
    ModelCall,
    {
        "tokens": _tokens,
        **dict.fromkeys(("cached_tokens", "cache_write_tokens", "reasoning_tokens"), max),
        **dict.fromkeys(("truncated", "cost_estimated"), max),
        "request": _request,
        "response": _members,
    },
    apart=("cost_usd", "list_cost_usd", "cost_unknown"),
)
_OF_SPAN = _rules(
    SpanState,
    {
        "start_time_unix_nano": _least(int),
        "end_time_unix_nano": _most(int),
        "status": _least(_STATUSES.index),
        "kind": _least(_KINDS.index),
        **dict.fromkeys(("is_gen_ai", "truncated", "input_size_bytes", "output_size_bytes"), max),
        "tokens": _tokens,
        "cost_usd": _most(lambda usd: (Decimal(usd), usd)),
        **dict.fromkeys(("tags", "notes"), _all),
        **dict.fromkeys(("attributes", "resource", "error"), _members),
        **dict.fromkeys(("events", "links"), _by_time),
        "model_calls": _calls,
    },
    apart=("span_id",),
)

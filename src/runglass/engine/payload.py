"""A step's input or output, with its JSON encoded once however often it is measured, stored or passed on."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from runglass.limits.memory import COUNTED_BYTES

_MANY = 2000
_TEXT = 64
"""So many values are encoded in a fraction of a millisecond, where so many characters count as one."""


class Holding:
    """How a large payload is held: `size` bytes of JSON, `address` of the checkpoint that has them, too.

    `users` are the steps that need it in memory; without one it may be `away`, in the store alone.
    """

    __slots__ = ("address", "away", "size", "users")

    def __init__(self, size: int) -> None:
        self.size = size
        self.address: tuple[str, str] | None = None
        self.away = False
        self.users = 0


class Snapshot(NamedTuple):
    """A payload as a trace keeps it; `size_bytes` is told before redacting and cutting.

    `data` is None where the capture mode keeps none.
    """

    data: msgspec.Raw | None
    size_bytes: int | None
    truncated: bool


class Payload:
    """A JSON value that must not be changed any more; None stands for the output of a step that failed.

    `captured` is the form that a trace keeps, behind the rules by which `Capture` made it: one payload is an
    output, the next input and the result, and is looked through for secrets only once. With a `holding` it
    has its JSON alone, or, as long as that is away, nothing at all.
    """

    __slots__ = ("__weakref__", "_json", "_value", "captured", "holding")

    def __init__(self, value: dict[str, Any] | None) -> None:
        self._value: Any = value
        self._json: bytes | None = None
        self.captured: tuple[Hashable, Snapshot] | None = None
        self.holding: Holding | None = None

    @classmethod
    def encoded(cls, data: bytes) -> "Payload":
        """The payload of JSON that is an object or null; raises msgspec.DecodeError."""
        # As Python objects what is kept for later would take 5 to 25 times as much.
        if len(data) < COUNTED_BYTES:
            payload = cls(msgspec.json.decode(data))
            payload._json = data
        else:
            payload = cls(None)
            payload._json, payload.holding = data, Holding(len(data))
        return payload

    @property
    def value(self) -> dict[str, Any] | None:
        """The value; decoded anew each time where the payload is large, so that it is not held."""
        if self.holding is not None:
            value: dict[str, Any] | None = msgspec.json.decode(self.json)
            return value
        return self._value  # type: ignore[no-any-return]

    @property
    def is_null(self) -> bool:
        """Whether it stands for the output of a step that failed."""
        return self._value is None and self.holding is None

    @property
    def json(self) -> bytes:
        if self._json is None:
            assert self.holding is None, "the payload is in the store"
            self._json = msgspec.json.encode(self._value)
        return self._json

    @property
    def is_slow(self) -> bool:
        """Whether its JSON is still to be made, and that takes more than a fraction of a millisecond."""
        if self._json is not None or self.holding is not None:
            return False
        pending, room = [self._value], _MANY
        while pending:
            inner = pending.pop()
            kind = type(inner)
            if kind is str:
                room -= len(inner) // _TEXT
            elif kind is dict or kind is list:
                room -= len(inner)
                if room >= 0:
                    pending.extend(inner.values() if kind is dict else inner)
            if room < 0:
                return True
        return False

    @property
    def size_bytes(self) -> int:
        """Size of the JSON, known wherever that is."""
        if self.holding is not None:
            return self.holding.size
        # Asked several times for each step.
        if self._json is None:
            self._json = msgspec.json.encode(self._value)
        return len(self._json)

    def slim(self) -> Holding:
        """Lets go of everything that can be made again from the JSON."""
        if self.holding is None:
            self.holding = Holding(len(self.json))
        self._value = self.captured = None
        return self.holding

    def put_away(self) -> None:
        """Lets go of the JSON, too, which the checkpoint has."""
        self.slim().away = True
        self._json = None

    def bring_back(self, data: bytes) -> None:
        self.slim().away = False
        self._json = data


def items_of(outputs: Iterable[Payload | bytes]) -> bytes:
    """JSON of the output of a loop whose iterations gave these, all of them in memory."""
    jsons = [output if isinstance(output, bytes) else output.json for output in outputs]
    return b'{"items":[%s]}' % b",".join(jsons)


def branches_of(outputs: Mapping[str, Payload]) -> bytes:
    """JSON of the output of a parallel step whose branches gave these, all of them in memory."""
    pairs = [b"%s:%s" % (msgspec.json.encode(name), output.json) for name, output in outputs.items()]
    return b"{%s}" % b",".join(pairs)

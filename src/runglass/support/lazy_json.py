"""JSON members that are decoded when they are first read.

A trace of 10,000 steps carries 20,000 snapshots and most readers look at a handful. A struct keeps each as
`msgspec.Raw`, a view into the answer's bytes, and `decode_when_read` swaps the field's slot for a descriptor
that decodes on first access and keeps the result. Encoding takes whichever of the two is there, so bytes that
were never read travel unchanged.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    Json = dict[str, Any] | None
    JsonList = list[Any] | None
else:
    # msgspec must see Raw, and readers a dict: a union of the two is not a type that it decodes.
    Json = JsonList = msgspec.Raw


def encoded(data: bytes | msgspec.Raw | None) -> Json:
    """JSON bytes, or None, as the value of a `Json` field of a new struct."""
    value: Any = msgspec.Raw(data) if isinstance(data, bytes) else data
    return value  # type: ignore[no-any-return]  # bytes now, a dict for readers of the field


_SLOTS: dict[type, dict[str, Callable[[Any], Any]]] = {}
"""Of each class the lazy fields, with what reads them undecoded."""


class _DecodedWhenRead:
    __slots__ = ("slot",)

    def __init__(self, slot: Any) -> None:
        self.slot = slot

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        if owner is None:
            return self
        value = self.slot.__get__(owner, cls)
        if type(value) is msgspec.Raw:
            value = msgspec.json.decode(value)
            # The value goes straight into the slot: for callers the struct stays frozen, and a second read is
            # free.
            self.slot.__set__(owner, value)
        return value


def decode_when_read(cls: type[msgspec.Struct], fields: Iterable[str]) -> None:
    """Makes the named `Json` fields of a struct class lazy. Call once, right after the class statement."""
    slots = {name: cls.__dict__[name] for name in fields}
    _SLOTS[cls] = {name: slot.__get__ for name, slot in slots.items()}
    for name, slot in slots.items():
        setattr(cls, name, _DecodedWhenRead(slot))


def json_bytes(owner: msgspec.Struct, field: str) -> Json:
    """The field as JSON bytes without decoding it; None where it is null. Encodes it if it was read."""
    value = _SLOTS[type(owner)][field](owner)
    if type(value) is msgspec.Raw:
        is_null = len(value) == 4 and bytes(value) == b"null"
        return None if is_null else value  # type: ignore[return-value]  # as in `encoded`
    return None if value is None else encoded(msgspec.json.encode(value))


# No cycle goes through such a struct, which holds JSON, unless a reader puts it into its own snapshot: the
# garbage collector would walk every step of a long trace again and again.
class LazyStruct(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel", omit_defaults=True, eq=False
):
    """A struct with `Json` fields: equal by value and readable, whether they were read or not.

    A field without a value is left out of the JSON, never written as null. Those that derive from it say what
    their hash is made of.
    """

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        return all(getattr(self, name) == getattr(other, name) for name in self.__struct_fields__)

    # That of msgspec compares by identity.
    __ne__ = object.__ne__

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({fields})"

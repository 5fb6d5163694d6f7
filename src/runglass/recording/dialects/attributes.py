"""What the attributes of a span say, by slot of the table of synonyms."""

from functools import lru_cache
from typing import Any, NamedTuple

from runglass.recording.dialects.messages import unfolded
from runglass.recording.dialects.readers import PLAIN, kind_word, names
from runglass.recording.dialects.synonyms import FAMILIES, INDEXED, OF_ANYTHING, SYNONYMS

MOST_INDEXED = 2_000
"""The most messages, tools or documents of one span that are told one attribute at a time."""
MOST_CHARACTERS = 200


class _Place(NamedTuple):
    """Where the value of an indexed key goes: in the tree of this slot, "" for keys without one."""

    slot: str
    path: tuple[str, ...] = ()
    last: str = ""


@lru_cache(maxsize=8_192)
def _place(key: str) -> _Place | None:
    """Of a key that is not in the table; None for one that is not of generative AI."""
    words = key.split(".")
    if words[0] not in FAMILIES:
        return None
    for length in (2, 3):
        slot, path = INDEXED.get(".".join(words[:length])), words[length:]
        if slot == "settings" and path:
            return _Place(slot, (), ".".join(path))
        if slot is not None and len(path) > 1 and path[0].isdecimal() and len(path[0]) < 5:
            return _Place(slot, tuple(path[:-1]), path[-1]) if int(path[0]) < MOST_INDEXED else _Place("")
    return _Place("")


class SpanHead(NamedTuple):
    """What a span says beside its attributes; of a log record there are the scope and the time alone."""

    scope: str
    priced_ns: int
    """When it was, for prices that change."""
    name: str = ""
    kind: int = 0
    start_ns: int = 0
    end_ns: int = 0
    error_code: str | None = None


class Attributes:
    """Attributes, each read once: in `found` by slot where they are known, in `rest` where they are not.

    What is popped from `found` is used. `unused` is all that is left, under the keys with which it came.
    """

    __slots__ = ("_repeats", "_sent", "_trees", "found", "is_gen_ai", "rest")

    def __init__(self, sent: dict[str, Any]) -> None:
        self.found: dict[str, Any] = {}
        self.rest: dict[str, Any] = {}
        self.is_gen_ai = False
        self._repeats: dict[str, int] = {}
        self._sent: dict[str, tuple[int, str, Any]] = {}
        self._trees: dict[str, tuple[dict[str, Any], list[tuple[str, Any]]]] = {}
        self.add(sent)

    def add(self, attributes: dict[str, Any]) -> None:
        """Reads more of them: those of events that say what other spans have as attributes."""
        found, rest, sent = self.found, self.rest, self._sent
        for key, value in attributes.items():
            synonym = SYNONYMS.get(key)
            if synonym is not None:
                slot, read, rank = synonym
                said = read(value)
                if said is not None:
                    if slot in found:
                        self._choose(slot, said, rank, key, value)
                    else:
                        found[slot], sent[slot] = said, (rank, key, value)
                    continue
            place = _place(key) if len(key) < MOST_CHARACTERS else None
            if place is not None:
                self.is_gen_ai = True
                if place.slot and self._put(place, key, value):
                    continue
            if key in rest:
                self._keep(key, value)
            else:
                rest[key] = value
        self.is_gen_ai = self.is_gen_ai or not found.keys() <= OF_ANYTHING

    def _choose(self, slot: str, said: Any, rank: int, key: str, value: Any) -> None:
        known, (known_rank, known_key, known_value) = self.found[slot], self._sent[slot]
        if known == said and type(known) is type(said) and (slot != "kind" or kind_word(value) in PLAIN):
            return
        is_better = rank < known_rank
        if slot == "kind" and known.is_vague != said.is_vague:
            is_better = known.is_vague
        if is_better:
            self.found[slot], self._sent[slot] = said, (rank, key, value)
            key, value = known_key, known_value
        self._keep(key, value)

    def _keep(self, key: str, value: Any) -> None:
        """In `rest`, with a number where an event says otherwise than the span, or than another event."""
        if self.rest.setdefault(key, value) != value:
            self._repeats[key] = number = self._repeats.get(key, 1) + 1
            self.rest[f"{key}.{number}"] = value

    def _put(self, place: "_Place", key: str, value: Any) -> bool:
        """Puts one that goes on with an index into its tree; False where its place is taken."""
        tree, pairs = self._trees.setdefault(place.slot, ({}, []))
        for part in place.path:
            tree = tree.setdefault(part, {})
            if type(tree) is not dict:
                return False
        if place.last in tree or type(value) is dict:
            return False
        tree[place.last] = value
        pairs.append((key, value))
        return True

    def is_sent(self, slot: str, key: str) -> bool:
        """Whether the slot is filled by the attribute with this key."""
        return slot in self.found and self._sent[slot][1] == key

    def pop_word(self, slot: str, plain: frozenset[str] = frozenset()) -> Any:
        """As `found.pop`; what was sent stays an attribute where it says more than ours or a `plain` word."""
        said = self.found.pop(slot, None)
        if said is None:
            return None
        _, key, value = self._sent[slot]
        if type(said) is list:
            is_plain = names(value) == said
        else:
            is_plain = (word := kind_word(value)) == said or word in plain
        if not is_plain:
            self._keep(key, value)
        return said

    def pop_list(self, slot: str) -> list[Any] | None:
        """A list, in one piece or by index."""
        tree = self._trees.pop(slot, None) if self._trees else None
        found: list[Any] | None = self.found.pop(slot, None) if tree is None else unfolded(tree[0])
        return found

    def pop_settings(self) -> dict[str, Any]:
        """All settings of the request, by name."""
        found = self.found
        settings: dict[str, Any] = dict(found.pop("settings", ()))
        tree = self._trees.pop("settings", None)
        if tree is not None:
            settings |= tree[0]
        for slot in [slot for slot in found if slot.startswith("setting/")]:
            settings[slot[8:]] = found.pop(slot)
        return settings

    def unused(self) -> dict[str, Any]:
        """What was not understood, and what was not asked for."""
        for slot in self.found:
            _, key, value = self._sent[slot]
            self._keep(key, value)
        for _, pairs in self._trees.values():
            for key, value in pairs:
                self._keep(key, value)
        return self.rest

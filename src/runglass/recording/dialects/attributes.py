"""What the attributes of a span say, by slot of the table of synonyms."""

import re
from functools import lru_cache
from typing import Any, NamedTuple

from runglass.recording.dialects.messages import unfolded
from runglass.recording.dialects.readers import is_plain
from runglass.recording.dialects.synonyms import FAMILIES, INDEXED, OF_ANYTHING, SYNONYMS

MOST_INDEXED = 2_000
"""The most messages, tools or documents of one span that are told one attribute at a time."""
MOST_CHARACTERS = 200
_INDEX = re.compile(rf"({'|'.join(map(re.escape, INDEXED))})\.((\d{{1,4}})\..+|.+)", re.DOTALL)


@lru_cache(maxsize=8_192)
def _place(key: str) -> tuple[str, tuple[str, ...]] | None:
    """Of a key that is not in the table: the slot of the tree that it goes to, "" for none, and where in it.

    None for one that is not of generative AI.
    """
    if key.partition(".")[0] not in FAMILIES:
        return None
    if match := _INDEX.fullmatch(key):
        begin, rest, number = match.groups()
        if INDEXED[begin] == "requested":
            return "requested", (rest,)
        if number is not None and int(number) < MOST_INDEXED:
            return INDEXED[begin], tuple(rest.split("."))
    return "", ()


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


class _Tree(dict[str, Any]):
    """What came one attribute at a time, by the parts of the keys."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []


class Attributes:
    """Attributes, each read once: in `found` by slot where they are known, in `rest` where they are not.

    What is taken from `found` is used. `unused` is all that is left, under the keys with which it came.
    """

    __slots__ = ("_repeats", "_sent", "found", "is_gen_ai", "rest")

    def __init__(self, sent: dict[str, Any]) -> None:
        self.found: dict[str, Any] = {}
        self.rest: dict[str, Any] = {}
        self.is_gen_ai = False
        self._repeats: dict[str, int] = {}
        self._sent: dict[str, tuple[int, str, Any]] = {}
        self.add(sent)

    def add(self, attributes: dict[str, Any]) -> None:
        """Reads more of them: those of events that say what other spans have as attributes."""
        found, rest, sent = self.found, self.rest, self._sent
        for key, value in attributes.items():
            if (synonym := SYNONYMS.get(key)) is not None:
                slot, read, rank = synonym
                if (said := read(value)) is not None:
                    if slot in found:
                        self._choose(slot, said, rank, key, value)
                    else:
                        found[slot], sent[slot] = said, (rank, key, value)
                    continue
            if (place := _place(key) if len(key) < MOST_CHARACTERS else None) is not None:
                self.is_gen_ai = True
                if place[0] and self._put(*place, key, value):
                    continue
            if key in rest:
                self._keep(key, value)
            else:
                rest[key] = value
        self.is_gen_ai = self.is_gen_ai or not found.keys() <= OF_ANYTHING

    def _choose(self, slot: str, said: Any, rank: int, key: str, value: Any) -> None:
        known = self.found[slot]
        known_rank, known_key, known_value = self._sent.get(slot, (-1, "", None))
        if known == said and type(known) is type(said) and (slot != "kind" or is_plain(value, said)):
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

    def _put(self, slot: str, path: tuple[str, ...], key: str, value: Any) -> bool:
        """Puts one that goes on with an index into its tree; False where its place is taken."""
        if type(value) is dict:
            return False
        tree: Any = self.found.get(slot)
        if type(tree) is not _Tree:
            if tree is not None:
                # LiteLLM has the calls of tools there alone, and beside them a message without any.
                self._keep(*self._sent.pop(slot)[1:])
            tree = self.found[slot] = _Tree()
        node: Any = tree
        for part in path[:-1]:
            if not isinstance(node := node.setdefault(part, {}), dict):
                return False
        if path[-1] in node:
            return False
        node[path[-1]] = value
        tree.sent.append((key, value))
        return True

    def is_sent(self, slot: str, key: str) -> bool:
        """Whether the slot is filled by the attribute with this key."""
        return slot in self.found and self._sent[slot][1] == key

    def leave(self, slot: str, key: str) -> None:
        """Makes it an attribute again where this key has filled the slot."""
        if self.is_sent(slot, key):
            self._keep(key, self._sent[slot][2])
            del self.found[slot]

    def take(self, slot: str) -> Any:
        """What is found, now used; what came by index as lists and objects."""
        said = self.found.pop(slot, None)
        return unfolded(dict(said)) if type(said) is _Tree else said

    def take_word(self, slot: str) -> Any:
        """The same; what was sent stays an attribute where it says more than our word."""
        if (said := self.found.pop(slot, None)) is not None:
            _, key, value = self._sent[slot]
            if not is_plain(value, said):
                self._keep(key, value)
        return said

    def unused(self) -> dict[str, Any]:
        """What was not understood, and what was not asked for."""
        for slot, said in self.found.items():
            if type(said) is _Tree:
                for key, value in said.sent:
                    self._keep(key, value)
            elif slot in self._sent:
                self._keep(*self._sent[slot][1:])
        return self.rest

"""Which span is inside of which: nodes with at most one parent each, and no cycle.

A few numbers a node, in arrays: as objects those of a long trace would fill the memory, and the collector of
garbage would look through them again and again. Knows nothing of spans but their ids.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import compress
from random import SystemRandom
from sys import byteorder

NONE = -1
_IN_BUCKET = 24
_FACTOR = SystemRandom().getrandbits(64) | 1
"""Ids are their senders' choice, and must not all get into one bucket."""


class NodeIndex:
    """The nodes by their ids, in some bytes each where a dict takes a hundred.

    With every few that come one bucket is shared out between two: nothing ever stands still for all of them.
    """

    def __init__(self) -> None:
        self._ids, self._nodes = [bytearray()], [array("i")]
        self._mask = self._count = 0

    def get(self, id: int) -> int:
        """The node, NONE where there is none."""
        bucket = id * _FACTOR >> 60 & self._mask
        if bucket >= len(self._ids):
            bucket &= self._mask >> 1
        key = id.to_bytes(8, byteorder)
        ids, place = self._ids[bucket], -1
        while (place := ids.find(key, place + 1)) & 7:
            if place == NONE:
                return NONE
        return self._nodes[bucket][place >> 3]

    def add(self, id: int, node: int) -> None:
        """Adds an id that is not there yet."""
        bucket = id * _FACTOR >> 60 & self._mask
        if bucket >= len(self._ids):
            bucket &= self._mask >> 1
        self._ids[bucket] += id.to_bytes(8, byteorder)
        self._nodes[bucket].append(node)
        self._count += 1
        if self._count > _IN_BUCKET * len(self._ids):
            self._share_out()

    def _share_out(self) -> None:
        """Makes one more bucket, and puts into it what belongs there now."""
        number = len(self._ids)
        if number > self._mask:
            self._mask = 2 * self._mask + 1
        half = self._mask >> 1
        shared = number & half
        ids, nodes = array("Q", bytes(self._ids[shared])), self._nodes[shared]
        moves = [bool(id * _FACTOR >> 60 & half + 1) for id in ids]
        stays = [not each for each in moves]
        self._ids.append(bytearray(array("Q", compress(ids, moves))))
        self._nodes.append(array("i", compress(nodes, moves)))
        self._ids[shared] = bytearray(array("Q", compress(ids, stays)))
        self._nodes[shared] = array("i", compress(nodes, stays))


class SpanForest:
    """Trees of nodes, numbered from 0 on; `ids` are theirs, by which it is decided where a cycle is cut."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids
        nowhere = array("i", [NONE]) * len(ids)
        self.parent, self.child, self._next = nowhere, nowhere[:], nowhere[:]
        # Nodes above each other, of which ever more are skipped: of each span is asked whether its parent is
        # below it, and a walk through all levels would make deep trees quadratic.
        self._above = array("i", range(len(ids)))
        self.cut: dict[int, int] = {}
        """Nodes above which a cycle is cut, each with the parent that it has not got."""

    def grow(self, more: int) -> None:
        """Makes more nodes."""
        self._above.extend(range(len(self._above), len(self._above) + more))
        for links in (self.parent, self.child, self._next):
            links.extend([NONE] * more)

    def cut_for(self, node: int, parent: int) -> int:
        """The node above which a cycle is cut if a top node gets this parent, NONE without a cycle."""
        above = self._above
        top = parent
        while above[top] != top:
            above[top] = top = above[above[top]]
        if top != node:
            above[node] = parent
            return NONE
        lowest = at = parent
        while at != node:
            at = self.parent[at]
            if self._ids[at] < self._ids[lowest]:
                lowest = at
        self.cut[lowest] = parent if lowest == node else self.parent[lowest]
        return lowest

    def attach(self, node: int, parent: int) -> None:
        """Puts a node that has no parent below this one."""
        self.parent[node] = parent
        self._next[node] = self.child[parent]
        self.child[parent] = node

    def detach(self, node: int) -> int:
        """Takes a node away from its parent; returns how many nodes were looked at."""
        parent, looked_at = self.parent[node], 1
        if self.child[parent] == node:
            self.child[parent] = self._next[node]
        else:
            before = self.child[parent]
            while self._next[before] != node:
                before = self._next[before]
                looked_at += 1
            self._next[before] = self._next[node]
        self.parent[node] = self._next[node] = NONE
        return looked_at

    def forget_above(self, top: int) -> int:
        """Finds anew what is above each node of the tree with this top; returns how many nodes it has."""
        nodes = array("i", [top])
        self._above[top] = top
        for node in nodes:
            for child in self.children(node):
                self._above[child] = node
                nodes.append(child)
        return len(nodes)

    def children(self, node: int) -> Iterator[int]:
        child = self.child[node]
        while child != NONE:
            yield child
            child = self._next[child]

"""Which span is inside of which: nodes with at most one parent each, and no cycle.

A few numbers a node, in arrays. Knows nothing of spans but their ids.
"""

from array import array
from collections.abc import Iterator, Sequence

NONE = -1


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

    def add(self) -> None:
        """Makes the next node."""
        self._above.append(len(self._above))
        for links in (self.parent, self.child, self._next):
            links.append(NONE)

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

    def detach(self, node: int) -> None:
        """Takes a node away from its parent."""
        parent = self.parent[node]
        if self.child[parent] == node:
            self.child[parent] = self._next[node]
        else:
            before = self.child[parent]
            while self._next[before] != node:
                before = self._next[before]
            self._next[before] = self._next[node]
        self.parent[node] = self._next[node] = NONE

    def told_parent(self, node: int) -> int:
        """The parent that a node names, whether it is in there or was cut off."""
        return self.cut[node] if node in self.cut else self.parent[node]

    def children(self, node: int) -> Iterator[int]:
        child = self.child[node]
        while child != NONE:
            yield child
            child = self._next[child]

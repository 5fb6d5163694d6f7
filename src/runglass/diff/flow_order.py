"""The order in which the steps of one or several flows stand, iterations by number.

With parallel steps and loops it is another one than that of first start, which differs from run to run. Made
of links between nodes, which flows give and traces of other programs can give.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from runglass.outlines.builder import Node


class StepPlace(NamedTuple):
    """A step, and the ids of the loops around it, outermost first."""

    step_id: str
    loops: tuple[str, ...] = ()


def places(nodes: Sequence[Node]) -> list[StepPlace]:
    """The steps among the nodes of a tree, each of which stands behind its parent."""
    found: list[StepPlace] = []
    inside: list[tuple[str, ...]] = []
    for node in nodes:
        loops = inside[node.parent] if node.parent >= 0 else ()
        is_loop = node.kind == "loop"
        inside.append((*loops, node.id or node.name) if is_loop else loops)
        if is_loop or node.id is not None:
            found.append(StepPlace(node.id or node.name, loops))
    return found


class FlowOrder:
    """Where the attempts of runs stand, by the places of steps in the flows that they are of.

    Steps that only a later flow has stand behind the one that is before them there.
    """

    def __init__(self, *flows: Sequence[StepPlace]) -> None:
        order: list[str] = []
        for flow in flows:
            order = _merged(order, [place.step_id for place in flow])
        self._numbers = {step_id: number for number, step_id in enumerate(order)}
        self._loops: dict[str, list[tuple[str, ...]]] = {}
        for place in chain.from_iterable(flows):
            self._loops.setdefault(place.step_id, []).append(place.loops)

    def key(self, step_id: str, loop_path: Sequence[int]) -> tuple[int, ...]:
        """What to sort a step of an iteration by. Steps that no flow has come last."""
        number = self._numbers.get(step_id, len(self._numbers))
        for loops in self._loops.get(step_id, ()):
            if len(loops) == len(loop_path):
                numbers = [self._numbers[loop] for loop in loops]
                return (*chain.from_iterable(zip(numbers, loop_path, strict=True)), number)
        return (number, *loop_path)


def _merged(order: Sequence[str], more: Sequence[str]) -> list[str]:
    known, anchor = set(order), None
    following: dict[str | None, list[str]] = {}
    for step_id in dict.fromkeys(more):
        if step_id in known:
            anchor = step_id
        else:
            following.setdefault(anchor, []).append(step_id)
    merged = following.get(None, []).copy()
    for step_id in order:
        merged += [step_id, *following.get(step_id, ())]
    return merged

"""The tree of a flow as nodes with links to their parents, as outlines of runs need it."""

from runglass.flows.flow import ConditionStep, Flow, LoopStep, ParallelStep, Step
from runglass.outlines.builder import Node

TOP = -1


def flow_nodes(flow: Flow) -> list[Node]:
    """A node for each step and each branch, in document order: parents before what is inside of them."""
    nodes: list[Node] = []
    _add(nodes, flow.steps, TOP)
    return nodes


def _add(nodes: list[Node], steps: list[Step], parent: int) -> None:
    for step in steps:
        number = len(nodes)
        match step:
            case LoopStep():
                nodes.append(Node(step.id, step.id, "loop", parent))
                _add(nodes, step.steps, number)
            case ConditionStep():
                nodes.append(Node(step.id, step.id, "condition", parent))
                _add_branch(nodes, "then", step.then, number)
                _add_branch(nodes, "else", step.else_, number)
            case ParallelStep():
                nodes.append(Node(step.id, step.id, "parallel", parent))
                for name, branch in step.branches.items():
                    _add_branch(nodes, name, branch, number)
            case _:
                nodes.append(Node(step.id, step.id, "step", parent))


def _add_branch(nodes: list[Node], name: str, steps: list[Step], parent: int) -> None:
    if steps:
        nodes.append(Node(None, name, "branch", parent))
        _add(nodes, steps, len(nodes) - 1)

"""The order of the flow, and not that of the clock."""

import random

from runglass.diff.trace_diff import FlowOrder, StepLocation, step_locations
from runglass.flows.parser import parse_flow
from runglass.server.services.outlines import flow_nodes

FLOW = """
slug: grid
steps:
  - {id: first, type: passthrough}
  - id: rows
    type: loop
    over: items
    steps:
      - {id: before, type: passthrough}
      - {id: columns, type: loop, over: item, steps: [{id: cell, type: passthrough}]}
      - {id: after, type: passthrough}
  - id: either
    type: condition
    if: 'true'
    then: [{id: yes_, type: passthrough}]
    else: [{id: no_, type: passthrough}]
  - {id: last, type: passthrough}
"""

IN_ORDER: list[tuple[str, tuple[int, ...]]] = [
    ("first", ()),
    ("rows", ()),
    ("before", (0,)),
    ("cell", (0, 0)),
    ("cell", (0, 1)),
    ("after", (0,)),
    ("before", (1,)),
    ("cell", (1, 0)),
    ("after", (1,)),
    ("before", (10,)),
    ("yes_", ()),
    ("no_", ()),
    ("last", ()),
]


def in_order(order: FlowOrder, steps: list[tuple[str, tuple[int, ...]]]) -> list[tuple[str, tuple[int, ...]]]:
    shuffled = random.Random(7).sample(steps, len(steps))
    return sorted(shuffled, key=lambda step: order.key(*step))


def test_a_run_is_in_the_order_of_its_flow_iteration_by_iteration() -> None:
    assert in_order(FlowOrder(step_locations(flow_nodes(parse_flow(FLOW)))), IN_ORDER) == IN_ORDER


def test_a_step_that_only_one_version_has_stands_behind_the_one_before_it() -> None:
    old = [StepLocation("a"), StepLocation("gone"), StepLocation("z")]
    new = [
        StepLocation("start"),
        StepLocation("a"),
        StepLocation("new"),
        StepLocation("newer"),
        StepLocation("z"),
    ]
    steps = ["start", "a", "new", "newer", "gone", "z"]
    assert [step for step, _ in in_order(FlowOrder(old, new), [(step, ()) for step in steps])] == steps

"""The viewer knows each kind of step that a flow can have, and each kind of row that a tree can."""

import re
from pathlib import Path
from typing import get_args

import runglass.server.viewer as viewer
from runglass.flows.flow import LeafStep, Step
from runglass.outlines.outline import KINDS, STATUSES

VIEWER = Path(viewer.__file__).parent
WITHOUT_GLYPH = {"step", "iteration", "branch", "attempt"}
"""Rows that are parts of others, or have the glyph of their step."""


def listed(path: str, name: str) -> set[str]:
    """The texts, or else the keys, between the brackets that follow on `NAME =` in a module."""
    (inside,) = re.findall(
        rf"\bconst {name} = (?:new Set\()?[\[{{](.*?)\n?[\]}}]\)?;\n",
        (VIEWER / path).read_text("utf-8"),
        re.S,
    )
    return set(
        re.findall(r'"(\w+)"', inside) if inside.lstrip()[0] == '"' else re.findall(r"(\w+): ", inside)
    )


def tags(union: object) -> set[str]:
    return {kind.__struct_config__.tag for kind in get_args(union)}


def test_the_viewer_knows_the_kinds_of_steps_that_a_flow_can_have() -> None:
    assert listed("run/tree_rows.js", "LEAVES") == tags(LeafStep)
    assert listed("data/shape.js", "CONTAINERS") == tags(Step) - tags(LeafStep)


def test_the_viewer_knows_the_kinds_and_statuses_of_rows() -> None:
    assert listed("data/columns.js", "KINDS") == set(KINDS)
    assert listed("data/columns.js", "STATUSES") == set(STATUSES)


def test_each_kind_has_a_glyph() -> None:
    assert listed("parts/status.js", "GLYPHS") == (set(KINDS) | tags(LeafStep)) - WITHOUT_GLYPH

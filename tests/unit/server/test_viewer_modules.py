"""The viewer's modules: one script of them does the same, and they know each kind of step and of row."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

import runglass.server.viewer as viewer
from runglass.flows.flow import LeafStep, Step
from runglass.outlines.outline import KINDS, STATUSES
from runglass.server.viewer.assets import bundle

VIEWER = Path(viewer.__file__).parent
WITHOUT_GLYPH = {"step", "iteration", "branch", "attempt"}
"""Rows that are parts of others, or have the glyph of their step."""
MODULES = {
    "main.js": (
        'import { one, two as second } from "./a/numbers.js";\n'
        'import sum from "./a/sum.js";\n'
        'import {\n  list,\n} from "./all.js";\n'
        "const text = 'import x from somewhere; export';\n"
        "console.log(sum(one, second), list.length, text);\n"
    ),
    "a/numbers.js": (
        "export const one = 1;\nexport const [two, three] = [2, 3];\nexport { four };\nconst four = 4;\n"
    ),
    "a/sum.js": "export default function (a, b) { return a + b; }\n",
    "all.js": (
        'export { one, two as zwei } from "./a/numbers.js";\n'
        "export async function later() {}\n"
        "export class Kind {}\n"
        "export function none() {}\n"
        "export const list = [1, 2, 3];\n"
    ),
    "small.js": 'import{one as n}from"./a/numbers.js";var t=n;export{t as number,n as one};\n',
    "unused.js": "throw new Error();\n",
}


@pytest.mark.skipif(shutil.which("node") is None, reason="node was not found")
def test_the_script_does_what_the_module_does() -> None:
    script = bundle(MODULES, "main.js")
    done = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "3 3 import x from somewhere; export\n"


@pytest.mark.parametrize(
    "text",
    [
        'import * as all from "./a/sum.js";',
        'import "./a/sum.js";',
        "export let n = 1;",
        'export * from "./a/sum.js";',
    ],
)
def test_no_other_form_is_taken_for_one_that_is_known(text: str) -> None:
    with pytest.raises(ValueError, match=r"'main\.js' has an import or export of another form"):
        bundle({**MODULES, "main.js": f"// First.\n{text}\n"}, "main.js")


def test_every_module_of_the_viewer_is_in_its_script() -> None:
    modules = {str(path.relative_to(VIEWER)): path.read_text("utf-8") for path in VIEWER.rglob("*.js")}
    script = bundle(modules, "main.js")
    assert script.count(" = (() => { ") == len(modules)
    assert script.count("const $vendor_preact = ") == 1


def listed(path: str, name: str) -> set[str]:
    """The texts, or else the keys, between the brackets that follow on `NAME =` in a module."""
    text = (VIEWER / path).read_text("utf-8")
    (inside,) = re.findall(rf"\bconst {name} = (?:new Set\()?[\[{{](.*?)\n?[\]}}]\)?;\n", text, re.S)
    return set(re.findall(r'"(\w+)"' if inside.lstrip()[0] == '"' else r"(\w+): ", inside))


def tags(union: object) -> set[str]:
    return {kind.__struct_config__.tag for kind in get_args(union)}


def test_the_viewer_knows_the_kinds_of_steps_that_a_flow_can_have_and_of_rows_each_with_a_glyph() -> None:
    assert listed("run/tree_rows.js", "LEAVES") == tags(LeafStep)
    assert listed("data/shape.js", "CONTAINERS") == tags(Step) - tags(LeafStep)
    assert listed("data/columns.js", "KINDS") == set(KINDS)
    assert listed("data/columns.js", "STATUSES") == set(STATUSES)
    assert listed("parts/status.js", "GLYPHS") == (set(KINDS) | tags(LeafStep)) - WITHOUT_GLYPH

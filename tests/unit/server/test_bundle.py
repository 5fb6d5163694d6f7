"""One script of the viewer's modules: it does the same."""

import shutil
import subprocess
from pathlib import Path

import pytest

import runglass.server.viewer as viewer
from runglass.server.viewer.assets import bundle

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
    folder = Path(viewer.__file__).parent
    modules = {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.js")}
    script = bundle(modules, "main.js")
    assert script.count(" = (() => { ") == len(modules)
    assert script.count("const $vendor_preact = ") == 1

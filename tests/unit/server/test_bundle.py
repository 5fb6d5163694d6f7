"""One script of the viewer's modules: it does the same, and its map names its modules."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import runglass.server.viewer as viewer
from runglass.server.viewer.assets import bundle, source_map

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
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def test_a_module_comes_once_and_after_those_that_it_imports() -> None:
    _, paths = bundle(MODULES, "main.js")
    assert paths == ["a/numbers.js", "a/sum.js", "all.js", "main.js"]


@pytest.mark.skipif(shutil.which("node") is None, reason="node was not found")
def test_the_script_does_what_the_module_does() -> None:
    script, _ = bundle(MODULES, "main.js")
    done = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "3 3 import x from somewhere; export\n"


def test_what_a_module_exports_has_the_names_that_others_know() -> None:
    script, _ = bundle(MODULES, "all.js")
    assert "return { one: $a_numbers.one, zwei: $a_numbers.two, later, Kind, none, list }; })();\n" in script
    assert "return { four: four, one, two, three }; })();\n" in script


def test_a_minified_library_is_a_module_like_others() -> None:
    script, paths = bundle(MODULES, "small.js")
    assert paths == ["a/numbers.js", "small.js"]
    assert "const {one: n} = $a_numbers;var t=n;\nreturn { number: t, one: n }; })();" in script.replace(
        "\n\n", "\n"
    )


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


def test_modules_that_import_each_other_are_refused() -> None:
    modules = {"a.js": 'import { b } from "./b.js";\n', "b.js": 'import { a } from "./a.js";\n'}
    with pytest.raises(ValueError, match=r"a\.js -> b\.js -> a\.js"):
        bundle(modules, "a.js")


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"'b\.js', which is not there"):
        bundle({"a.js": 'import { b } from "./b.js";\n'}, "a.js")


def test_the_map_leads_from_each_line_to_the_same_line_of_its_module() -> None:
    script, paths = bundle(MODULES, "main.js")
    found = json.loads(source_map(MODULES, paths))
    lines = script.splitlines()
    places = [(found["sources"][source], number) for source, number in decoded(found["mappings"])]
    assert len(places) == len(lines)
    where = dict(zip(lines, places, strict=True))
    assert where["const four = 4;"] == ("a/numbers.js", 3)
    assert where["class Kind {}"] == ("all.js", 2)
    assert where["const text = 'import x from somewhere; export';"] == ("main.js", 5)
    assert places[-1] == ("main.js", 8)


def test_every_module_of_the_viewer_is_in_its_script() -> None:
    folder = Path(viewer.__file__).parent
    modules = {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.js")}
    script, paths = bundle(modules, "main.js")
    assert sorted(paths) == sorted(modules)
    assert script.count("const $vendor_preact = ") == 1


def decoded(mappings: str) -> Iterator[tuple[int, int]]:
    """The source and the line in it of each line of a script, as browsers read a map."""
    source = number = 0
    for line in mappings.split(";"):
        fields, value, shift = [], 0, 0
        for digit in map(BASE64.index, line):
            value |= (digit & 31) << shift
            shift += 5
            if digit < 32:
                fields.append(-(value >> 1) if value & 1 else value >> 1)
                value, shift = 0, 0
        _, by_source, by_line, _ = fields
        source, number = source + by_source, number + by_line
        yield source, number

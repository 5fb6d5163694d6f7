"""Reading the text of a flow file: what is read, what is refused and where the message points."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runglass.errors import FlowFileError, Problem, RunglassError
from runglass.flows.flow import LlmStep, decode_flow
from runglass.flows.parser import parse_flow
from tests.flows import EXAMPLE, HEAD, LLM, ONE, problems


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_like_yaml(indent: int | str | None) -> None:
    flow = parse_flow(EXAMPLE)
    data = json.loads(flow.encode())
    data["name"] = "caf\u00e9 \U0001f600 \u2028 \\ / \x07"
    text = json.dumps(data, indent=indent)
    assert parse_flow(text) == msgspec.structs.replace(flow, name=data["name"])
    assert parse_flow(text.replace("/", "\\/").encode()) == parse_flow(text)


def test_yaml_1_2_scalars_and_aliases_are_read() -> None:
    flow = parse_flow(
        "\ufeffslug: a\r\ncapture: off\r\nsteps:\r\n"
        "  - &one\r\n    id: a\r\n    type: llm\r\n    model: echo\r\n    timeout_ms: 3.0\r\n"
        "    input: {yes: no, n: 1e3, o: 0o17, s: '2020-01-01', e: , big: 36893488147419103232}\r\n"
        "  - {id: b, type: passthrough, input: &data {x: [1]}}\r\n"
        "  - {id: c, type: passthrough, input: *data}\r\n"
    )
    assert flow.capture == "off"
    step = flow.steps[0]
    assert isinstance(step, LlmStep)
    assert step.timeout_ms == 3
    expected = {"yes": "no", "n": 1000.0, "o": 15, "s": "2020-01-01", "e": None, "big": 2**65}
    assert step.input == expected
    assert flow.steps[1].input == flow.steps[2].input == {"x": [1]}
    assert decode_flow(flow.encode()) == flow
    assert parse_flow(b"\xef\xbb\xbf%YAML 1.2\n---\nslug: a\n" + ONE.encode()).slug == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["f.yaml:1:1: the file is empty"]),
        ("hello\n", ["f.yaml:1:1: expected an object, found 'hello'"]),
        (b"\x89PNG\r\n\x1a\n", ["f.yaml:1:1: the file is not UTF-8 text: byte 0x89"]),
        ("slug: é\nname: ü".encode("latin-1"), ["f.yaml:1:7: the file is not UTF-8 text: byte 0xE9"]),
        ("slug: a".encode("utf-16"), ["f.yaml:1:1: the file is UTF-16 or UTF-32; save it as UTF-8"]),
        ("slug: a\nname: b\0", ["f.yaml:2:8: the character U+0000 may not stand in a text file"]),
        (
            "slug: a\nsteps:\n\t- id: a\n",
            [
                r"f.yaml:3:1: not valid YAML: found character '\t' that cannot start any token "
                "(while scanning for the next token); indent with spaces, not tabs"
            ],
        ),
        (
            "slug: a\nsteps: [\n",
            [
                "f.yaml:3:1: not valid YAML: expected the node content, but found '<stream end>' "
                "(while parsing a flow node from line 3)"
            ],
        ),
        (
            'slug: a\nname: "\\UFFFFFFFF"\n',
            ["f.yaml:2:8: not valid YAML: an escape names a character beyond U+10FFFF"],
        ),
        ("%YAML 2.0\n---\nslug: a\n", ["f.yaml:1:1: only YAML 1.2 is read"]),
        ("[" * 5000, ["f.yaml:1:151: values are nested deeper than 150 levels"]),
        ("&a [*a]", ["f.yaml:1:1: values are nested deeper than 150 levels, or an alias contains itself"]),
        (
            "x" * (1 << 20) + "x",
            ["f.yaml: the file is larger than 1,048,576 characters (setting flow_limit_bytes)"],
        ),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_its_place(text: str | bytes, expected: list[str]) -> None:
    assert problems(text) == expected


def test_aliases_that_multiply_are_refused() -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert problems(laughs)[0].endswith("aliases repeat more than 100,000 values")


def test_values_that_json_cannot_hold_are_refused() -> None:
    text = LLM + (
        "    input:\n"
        "      a: .nan\n"
        "      b: [1, -.inf, 1e999]\n"
        "      c: 2020-01-01\n"
        "      d: !!binary aGk=\n"
        "      e: !!python/object/apply:os.system [ls]\n"
        '      f: "\\uD800"\n'
        "      5: x\n"
        "      true: x\n"
        "      g: 1\n"
        "      h: 1\n"
        "      g: 2\n"
        "      <<: {x: 1}\n"
        "      ? [1]\n"
        "      : 2\n"
        f"      i: {'9' * 5000}\n"
        "      j: !!int x\n"
        "      k: !local {}\n"
    )
    where = "at steps[0].input"
    assert problems(text) == [
        f"f.yaml:7:10: '.nan' is not a number that JSON can hold {where}.a",
        f"f.yaml:8:14: '-.inf' is not a number that JSON can hold {where}.b[1]",
        f"f.yaml:8:21: '1e999' is not a number that JSON can hold {where}.b[2]",
        f"f.yaml:9:10: 2020-01-01 reads as a date, which JSON does not have; put it in quotes {where}.c",
        f"f.yaml:10:10: the tag 'binary' is not supported {where}.d",
        f"f.yaml:11:10: the tag 'python/object/apply:os.system' is not supported {where}.e",
        f"f.yaml:12:10: an escape names half a surrogate pair, which is not a character {where}.f",
        f"f.yaml:13:7: the key 5 is not a string; put it in quotes {where}.5",
        f"f.yaml:14:7: the key true is not a string; put it in quotes {where}.true",
        f"f.yaml:17:7: the key 'g' is given twice, first on line 15 {where}.g",
        f"f.yaml:18:7: merge keys (`<<`) are not supported; write the fields out {where}['<<']",
        f"f.yaml:19:9: a key must be a string, not a list or an object {where}",
        f"f.yaml:21:10: '{'9' * 56}… cannot be read as int {where}.i",
        f"f.yaml:22:10: 'x' cannot be read as int {where}.j",
        f"f.yaml:23:10: the tag '!local' is not supported {where}.k",
    ]


def test_the_list_of_problems_has_a_bound() -> None:
    unknown = [f"x{number}" for number in range(1001)]
    assert problems("".join(["slug: a\n", *(f"{name}: 1\n" for name in unknown), ONE])) == [
        *(f"f.yaml:{line}:1: unknown field '{name}' at {name}" for line, name in enumerate(unknown[:-1], 2)),
        "f.yaml: there may be more; only 1,000 problems are listed",
    ]


def test_what_a_flow_file_raises_is_the_caller_s_to_catch() -> None:
    with pytest.raises(RunglassError) as caught:
        parse_flow("slug: a\nsteps:\n  - id: x\n    type: wait\n    ms: -1\n", file="flows/a.yaml")
    assert isinstance(caught.value, FlowFileError)
    (problem,) = caught.value.problems
    assert problem == ("-1 is less than the minimum of 0", "steps[0].ms", 5, 9)
    assert str(caught.value) == "flows/a.yaml:5:9: -1 is less than the minimum of 0 at steps[0].ms"


NOISE = st.sampled_from(
    [
        *("[", "]", "{", "}", '"', "'", ",", "#", "|", ">", "&a", "*a", "!!int", "!", "<<:", '"\\U'),
        *("FFFFFFFF", "2020-13-99", "0x", ".inf", "1e999", "{{", "}}", "{%", "%YAML", "---", " "),
        *("\n", "  ", "\t", ": ", "- ", "? ", "\ufeff", HEAD),
        *("- {id: a, type: code, code: ", "- {type: loop, if: "),
    ]
)  # fmt: skip


@settings(deadline=None)
@given(st.one_of(st.text(), st.binary(), st.lists(NOISE).map("".join), st.text().map(lambda t: HEAD + t)))
def test_whatever_comes_in_gives_a_flow_or_located_problems(text: str | bytes) -> None:
    problems: list[Problem] | None = None
    try:
        flow = parse_flow(text)
    except FlowFileError as error:
        problems = error.problems
    else:
        assert decode_flow(flow.encode()) == flow
    assert problems != []

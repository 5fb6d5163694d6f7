"""References to the outputs of other steps: which can never be met, which may be, which are left alone."""

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from runglass.errors import FlowFileError
from runglass.flows.diagnostics import Finding
from runglass.flows.flow import every_step
from runglass.flows.parser import check_flow, parse_flow
from runglass.flows.references import MAX_SUGGESTIONS, unmet_references
from tests.contract.wire import execute, trace_of
from tests.servers import served

Find = Callable[[Any], Any]
LOOK = "return {'seen': list(steps)}"


def step(step_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "code", "code": LOOK} | fields


def llm(step_id: str, prompt: str, **more: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "llm", "model": "echo", "prompt": prompt, **more}


def findings(*steps: dict[str, Any], **more: Any) -> list[Finding]:
    """What is found in a flow of these steps."""
    return list(unmet_references({"slug": "a", "steps": list(steps), **more}))


def warnings(*steps: dict[str, Any], **more: Any) -> list[Finding]:
    """What is found where that is nothing but warnings."""
    found = findings(*steps, **more)
    assert all(finding.is_warning for finding in found)
    return found


def tree(**code: str) -> list[dict[str, Any]]:
    """Every way in which two steps can stand to each other; those that are named have this code."""

    def part(step_id: str) -> dict[str, Any]:
        return step(step_id, code=code.get(step_id, LOOK))

    route = {"id": "route", "type": "condition", "if": "True"}
    return [
        part("first"),
        {"id": "loop", "type": "loop", "over": "[1, 2]", "steps": [part("in1"), part("in2")]},
        route | {"then": [part("then1"), part("then2")], "else": [part("else1")]},
        {
            "id": "both",
            "type": "parallel",
            "branches": {
                "a": [part("a1"), {"id": "nest", "type": "loop", "over": "[1]", "steps": [part("deep")]}],
                "b": [part("b1")],
            },
        },
        part("last"),
    ]


def in_code(text: str) -> list[Finding]:
    """What is found in code of the step `here`, which stands between others."""
    return findings(step("before"), step("here", code=text), step("after"))


def in_prompt(text: str) -> list[Finding]:
    return findings(step("before"), llm("here", text), step("af-ter"))


def test_the_findings_agree_with_a_run() -> None:
    text = json.dumps({"slug": "tree", "steps": tree()})
    with served(text, capture="full") as (_, http):
        trace = trace_of(http, execute(http, "tree"))
    completed = [row for row in trace["steps"] if row["status"] == "completed"]
    seen = {row["stepId"]: set(row["outputContext"]["seen"]) for row in completed}
    targets = [part.id for part in every_step(parse_flow(text).steps)]
    assert (len(seen), len(targets)) == (9, 14)
    judged = 0
    for reader, target in product(seen, targets):
        found = findings(*tree(**{reader: f"return steps[{target!r}]"}))
        if found and found[0].is_warning:
            continue
        judged += 1
        assert bool(found) == (target not in seen[reader]), (reader, target, found)
    assert judged > 100


@pytest.mark.parametrize(
    ("find", "text", "said", "place"),
    [
        (in_prompt, "{{ steps.befor.text }}", "the flow has no step 'befor'; did you mean 'before'?", (1, 4)),
        (
            in_prompt,
            "{{ steps.af.text }}",
            "the flow has no step 'af'; did you mean steps[\"af-ter\"]?",
            (1, 4),
        ),
        (
            in_prompt,
            "{{ steps['af-ter'].text }}",
            "step 'af-ter' comes later; its output is not there yet",
            (1, 4),
        ),
        (in_prompt, "{{ steps.here }}", "step 'here' cannot see its own output", (1, 4)),
        (in_prompt, "{{ {'a': {}}.a }}{{ steps.no }}", "the flow has no step 'no'", (1, 21)),
        (in_code, "return steps['nope']", "the flow has no step 'nope'", (1, 8)),
        (
            in_code,
            "x = 1\nreturn steps.before",
            '`steps` is an object: write steps["before"], not steps.before',
            (2, 8),
        ),
        (
            in_code,
            "def f():\n    return steps['here']\nreturn f()",
            "step 'here' cannot see its own output",
            (2, 12),
        ),
    ],
)
def test_what_can_never_be_there_is_a_mistake(
    find: Find, text: str, said: str, place: tuple[int, int]
) -> None:
    (finding,) = find(text)
    assert (finding.message, (finding.line, finding.column), finding.is_warning) == (said, place, False)


def test_so_many_suggestions_are_looked_for_at_most() -> None:
    found = in_prompt("".join(f"{{{{ steps.befor{number} }}}}" for number in range(2 * MAX_SUGGESTIONS)))
    suggested = [finding.message.endswith("did you mean 'before'?") for finding in found]
    assert suggested == [True] * MAX_SUGGESTIONS + [False] * MAX_SUGGESTIONS


@pytest.mark.parametrize(
    "code",
    [
        "return steps['nope'] if 'nope' in steps else {}",
        "try:\n    return steps['nope']\nexcept KeyError:\n    return {}",
    ],
)
def test_code_that_asks_first_gets_a_warning(code: str) -> None:
    (finding,) = in_code(code)
    assert (finding.message, finding.is_warning) == ("the flow has no step 'nope'", True)


def test_what_may_be_there_gets_a_warning_unless_the_text_goes_by_a_condition() -> None:
    (finding,) = warnings(*tree(last="return steps['then1']"))
    assert finding.message == "step 'then1' runs only where condition 'route' takes its branch"
    steps = tree(last="return steps['then1'] if initial['x'] else {}")
    assert findings(*steps) == []
    steps[3]["branches"]["b"][0]["input"] = {"x": ["{{ steps.a1.seen }}"]}
    (finding,) = warnings(*steps)
    assert finding.path == ("steps", 3, "branches", "b", 0, "input", "x", 0)
    assert "runs in another branch of 'both' at the same time" in finding.message


@pytest.mark.parametrize("field", ["over", "if"])
def test_a_container_asks_before_its_steps_run(field: str) -> None:
    kind, inside = ("loop", "steps") if field == "over" else ("condition", "then")
    (finding,) = findings({"id": "c", "type": kind, field: "steps['inner']", inside: [step("inner")]})
    assert finding.message == "step 'inner' is inside 'c' and runs later; its output is not there yet"
    assert finding.path == ("steps", 0, field)


def test_a_flow_that_can_be_used_comes_with_its_warnings() -> None:
    text = """slug: a
inputs: {type: object, require: [x]}
steps: [{id: a, type: code, code: "return steps.get('b')"}]
"""
    checked = check_flow(text, file="f.yaml")
    assert checked.flow == parse_flow(text)
    assert [warning.located("f.yaml") for warning in checked.warnings] == [
        "f.yaml:2:24: there is no keyword 'require': it does nothing; did you mean 'required'? "
        "at inputs.require",
        "f.yaml:3:43: the flow has no step 'b' at steps[0].code",
    ]
    with pytest.raises(FlowFileError) as refused:
        check_flow(text + "more: 1\n")
    assert [problem.path for problem in refused.value.problems] == ["more"]
    assert len(refused.value.warnings) == 2


BEFORE = llm("define", "{{ message }}")


def advice(use: dict[str, Any], before: dict[str, Any] = BEFORE, **more: Any) -> list[tuple[Any, ...]]:
    """The warnings about step ids that stand alone as names, in a step behind the step `define`."""
    found = warnings(before, use, **more)
    assert all("as far as is known here" in finding.message for finding in found)
    return [(finding.message.rpartition(" is ")[2], finding.line, finding.column) for finding in found]


def test_an_id_alone_is_no_name_and_the_warning_says_what_to_write() -> None:
    assert advice(llm("grade", "Grade this:\n  {{ define.text }}")) == [("steps.define", 2, 6)]
    assert advice(llm("grade", 'Say "define": {{ define }}')) == [("steps.define", 1, 18)]
    assert advice(step("n", code="x = 1\nreturn {'n': len(define)}")) == [('steps["define"]', 2, 18)]
    assert advice(step("n", code="return {'n': define or define}")) == [('steps["define"]', 1, 14)]
    loop = {"id": "each", "type": "loop", "over": "define", "steps": [step("in")]}
    assert advice(loop) == [('steps["define"]', 1, 1)]
    keep = {"id": "keep", "type": "passthrough", "input": {"a": "{{ define }}"}}
    assert advice(keep) == [("steps.define", 1, 4)]


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("sum", step("n", code="return {'n': sum(rows) + max(rows)}")),
        ("range", {"id": "each", "type": "loop", "over": "range(3)", "steps": [step("in")]}),
        ("range", llm("grade", "{% for n in range(3) %}{{ n }}{% endfor %}")),
    ],
)
def test_a_function_that_is_called_is_no_step_of_that_name(name: str, use: dict[str, Any]) -> None:
    assert advice(use, llm(name, "{{ message }}")) == []
    assert advice(step("n", code=f"return {{'n': {name}}}"), llm(name, "x")) == [(f'steps["{name}"]', 1, 14)]
    mixed = llm("use", "The range (of all) is {{ range }} or {{ range(3) }}")
    assert advice(mixed, llm("range", "x")) == [("steps.range", 1, 26)]


def test_a_field_of_the_same_name_may_be_meant() -> None:
    use = llm("use", "{{ define }}")
    field = {"type": "object", "properties": {"define": {}}}
    assert advice(use, inputs=field) == []
    assert advice(use, llm("define", "x", output_schema=field)) == []
    assert advice(use, step("define", code="return {'define': 1}")) == []
    assert advice(use, step("define", code="return dict(define=1)")) == []
    assert advice(use, {"id": "define", "type": "passthrough", "input": {"define": 1}}) == []
    branches = {"define": [step("a")], "other": [step("b")]}
    assert findings(BEFORE, {"id": "both", "type": "parallel", "branches": branches}, use) == []
    loop = {"id": "each", "type": "loop", "over": "words", "as": "define", "steps": [use]}
    assert advice(loop) == []


RUN_INPUTS = {"type": "object", "properties": {"message": {"type": "string"}, "text": {}, "word": {}}}
ASKED = llm("ask", "{{ message }}")


def behind_a_model(use: dict[str, Any]) -> list[Finding]:
    return findings(ASKED, use, inputs=RUN_INPUTS)


def test_an_input_of_the_run_is_not_there_for_a_step_behind_a_model() -> None:
    (finding,) = behind_a_model(llm("b", "Of {{ message }}: {{ text }}"))
    assert finding.is_warning
    assert (finding.path, finding.column) == (("steps", 1, "prompt"), 7)
    assert finding.message == (
        "'message' is an input of the run, but this step gets the output of step 'ask', which has `text`; "
        "the run's input is initial.message"
    )
    both = {"id": "both", "type": "parallel", "branches": {"a": [step("left")], "b": [step("right")]}}
    (finding,) = warnings(both, llm("c", "{{ message }} {{ a }}"), inputs=RUN_INPUTS)
    assert "step 'both', which has `a`, `b`;" in finding.message


def slips(steps: list[dict[str, Any]], **schema: Any) -> list[tuple[str, Any, int | None, int | None]]:
    """The warnings about inputs that are not declared; `message` and `language` are."""
    inputs = {"properties": {"message": {}, "language": {}}, **schema}
    return [(each.message, each.path, each.line, each.column) for each in warnings(*steps, inputs=inputs)]


def test_an_input_that_is_nearly_a_declared_one_is_told() -> None:
    said = "`inputs` declares no 'mesage'; did you mean 'message'?"
    first = ("steps", 0, "prompt")
    assert slips([llm("a", "Say\n {{ mesage }}")]) == [(said, first, 2, 5)]
    assert slips([llm("a", "{{ initial.mesage }}")]) == [(said, first, 1, 4)]
    assert slips([step("a", code="return initial['mesage']")]) == [(said, ("steps", 0, "code"), 1, 8)]
    assert slips([step("a", code="return {'x': mesage}")]) == [(said, ("steps", 0, "code"), 1, 14)]
    late = [llm("a", "{{ message }}"), llm("b", "{{ initial.mesage }} {{ text }}")]
    assert [each[:2] for each in slips(late)] == [(said, ("steps", 1, "prompt"))]


def test_where_callers_may_give_no_other_input_each_other_is_told() -> None:
    asked = [llm("a", "{{ initial.customer }} {{ message }}")]
    (slip,) = slips(asked, additionalProperties=False)
    assert slip[0] == "`inputs` declares no 'customer'"
    assert slips(asked, additionalProperties=False, patternProperties={"^c": {}}) == []


LEFT_ALONE: dict[Find, list[Any]] = {
    in_prompt: [
        "steps.nobody",
        "{{ steps.before.text }}{{ steps['before'] }}",
        "{# steps.nobody #}{% raw %}{{ steps.nobody }}{% endraw %}",
        "{{ 'steps.nobody' }}{{ message.steps.nobody }}{{ x | steps }}",
        "{% set steps = {} %}{{ steps.nobody }}",
        "{% for id, output in steps.items() %}{{ id }}{% endfor %}{{ steps.get('before') }}",
        "{{ steps.nobody",
    ],
    in_code: [
        "return steps['before'] | steps.get('before') | dict(steps.items())",
        "return steps[name]",
        "steps = {'nope': {}}\nreturn steps['nope']",
        "return (lambda steps: steps['nope'])({})",
        "try:\n    x()\nexcept ValueError as steps:\n    return steps['nope']",
        "import json as steps\nreturn steps['nope']",
        "return steps['nope'",
    ],
    advice: [
        llm("grade", "{{ steps.define.text }}"),
        llm("grade", "{% set define = 1 %}{{ define }}"),
        llm("grade", "{% for define in words %}{{ define }}{% endfor %}"),
        llm("grade", "{% if define is defined %}{{ define }}{% endif %}"),
        llm("grade", "{{ define"),
        step("n", code="define = 1\nreturn {'n': define}"),
        step("n", code="return {'n': [define for define in words]}"),
        step("n", code="return {'n': x.define}"),
        step("n", code="return {'n': ("),
    ],
    behind_a_model: [
        step("b", code="return {'a': message}", input={"message": "{{ initial.message }}"}),
        llm("b", "{% if message is defined %}{{ message }}{% endif %}"),
    ],
    slips: [
        [llm("a", "{{ message }} {{ initial.language }}")],
        [llm("a", "{{ initial.mesage | default('x') }} {{ mesage | default('x') }}")],
        [step("a", code="mesage = 1\nreturn {'x': mesage, 'y': initial.get('mesage')}")],
        [llm("a", "{{ mesage }}", input={"mesage": "x"})],
        [step("a", code="return {'initial': {}}"), llm("b", "{{ initial.mesage }}")],
    ],
    unmet_references: [
        None,
        {},
        {"steps": 1},
        {"steps": [1, {}, {"id": 1, "type": [], "steps": {}, "branches": []}]},
        {"steps": [{"type": "code", "code": 1}]},
    ],
}
"""What may be met or given, means no step, cannot be judged, or is no flow."""


@pytest.mark.parametrize(("find", "data"), [(find, each) for find in LEFT_ALONE for each in LEFT_ALONE[find]])
def test_what_is_right_or_cannot_be_judged_has_no_finding(find: Find, data: Any) -> None:
    assert list(find(data)) == []

"""What makes a flow wrong: the shape of each step, and the code, templates and schemas inside it."""

import copy
import inspect
import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pydantic_ai.models
import pytest
from pydantic_ai.providers import infer_provider_class
from pydantic_ai.settings import ModelSettings

from runglass.config.settings import USUAL
from runglass.engine.steps.scope import mentioned_outputs
from runglass.flows import models as flow_models
from runglass.flows.diagnostics import path_text
from runglass.flows.flow import Step, Syntax, step_count
from runglass.flows.parser import check_flow, flow_rules, parse_flow
from runglass.flows.references import unmet_references
from runglass.flows.schemas.schema import compile_schema
from runglass.flows.syntax import fields_with_syntax, syntaxes, template_findings
from tests.flows import ANY_KIND, HEAD, LLM, ONE, problems, smallest_step

LEAF = "{id: s%d, type: passthrough}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\n" + ONE, ["f.yaml:1:1: `slug` is missing at slug"]),
        ("slug: a\nsteps: []\n", ["f.yaml:2:8: must not be empty at steps"]),
        ("slug: A b\n" + ONE, ['f.yaml:1:7: "A b" does not match "^[a-z0-9-]{1,128}$" at slug']),
        (
            "slug: a\ncapture: ful\n" + ONE,
            [
                "f.yaml:2:10: expected full, metadata_only, off or redacted, found 'ful'; "
                "did you mean 'full'? at capture"
            ],
        ),
        (
            f"slug: a\n{ONE}{'n' * 100}1: !!x 1\n{'n' * 100}2: 1\n",
            [
                f"f.yaml:3:104: the tag 'x' is not supported at [\"{'n' * 100}…\"]",
                f"f.yaml:4:1: unknown field '{'n' * 56}… at [\"{'n' * 100}…\"]",
            ],
        ),
        (HEAD + "  - 5\n", ["f.yaml:3:5: expected an object, found 5 at steps[0]"]),
        (
            HEAD + "  - {id: a, type: llm, model: 5, settings: {seed: 1}}\n",
            ["f.yaml:3:31: expected a string, found 5 at steps[0].model"],
        ),
        (
            HEAD + "  - id: a\n    typ: llm\n",
            [f"f.yaml:3:5: `type` is missing; a step is {ANY_KIND} at steps[0].type"],
        ),
        (
            HEAD + "  - id: a\n    type: llm\n    modle: echo\n    retry:\n      max_attempts: 0\n",
            [
                "f.yaml:3:5: `model` is missing at steps[0].model",
                "f.yaml:5:5: unknown field 'modle'; did you mean 'model'? at steps[0].modle",
                "f.yaml:7:21: 0 is less than the minimum of 1 at steps[0].retry.max_attempts",
            ],
        ),
        (
            HEAD + "  - {id: l, type: loop, over: x, max_concurrency: 1001, steps: []}\n"
            "  - {id: c, type: condition, if: x, then: [], else: }\n"
            "  - {id: p, type: parallel, branches: {a: [], b: 5}}\n"
            "  - {id: q, type: parallel, branches: {}, retry: {}}\n",
            [
                "f.yaml:3:51: 1001 is greater than the maximum of 1000 at steps[0].max_concurrency",
                "f.yaml:3:64: must not be empty at steps[0].steps",
                "f.yaml:4:43: must not be empty at steps[1].then",
                "f.yaml:4:47: expected a list, found null at steps[1].else",
                "f.yaml:5:43: must not be empty at steps[2].branches.a",
                "f.yaml:5:50: expected a list, found 5 at steps[2].branches.b",
                "f.yaml:6:39: must not be empty at steps[3].branches",
                "f.yaml:6:43: unknown field 'retry' at steps[3].retry",
            ],
        ),
        (
            HEAD + "  - {id: a, type: passthrough}\n"
            "  - {id: p, type: parallel, branches: {a b: [{id: l, type: loop, over: x, steps: "
            "[{id: a, type: passthrough}]}]}}\n",
            [
                "f.yaml:4:88: the id 'a' is used twice, first on line 3 "
                'at steps[1].branches["a b"][0].steps[0].id'
            ],
        ),
        (
            HEAD + "".join(
                f"  - {{id: l{i}, type: loop, over: x, as: {name}, steps: [{LEAF % i}]}}\n"
                for i, name in enumerate(["a b", "class", "index", "ok", ""])
            ),
            [
                "f.yaml:3:39: 'a b' cannot be a name in Python at steps[0].as",
                "f.yaml:4:39: 'class' cannot be a name in Python at steps[1].as",
                "f.yaml:5:39: 'index' has a meaning of its own, like attempt, index, initial or steps "
                "at steps[2].as",
                "f.yaml:7:35: expected a string, found null at steps[4].as",
            ],
        ),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_named_with_its_place(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (
            "code: |\n\n      x = 1\n      return {\n",
            "7:14: the code is not valid Python: '{' was never closed",
        ),
        ('code: "return )"\n', "4:19: the code is not valid Python: unmatched ')'"),
        (
            'code: "x = 1\\nreturn )"\n',
            "4:11: the code is not valid Python: unmatched ')' (line 2 of its text)",
        ),
        (f"code: {'-' * 9000}1\n", "4:11: the code is not valid Python: it is nested too deeply"),
        ('code: "\\0"\n', "4:11: the code is not valid Python: source code string cannot contain null bytes"),
        (f"code: a{'.a' * 100_000}\n", "4:11: the code is not valid Python: it is nested too deeply"),
        ("code: '# nothing'\n", "4:11: the code is empty; it must return an object"),
    ],
)
def test_code_that_does_not_parse_is_a_mistake(step: str, expected: str) -> None:
    text = HEAD + "  - id: a\n    " + step + "    type: code\n"
    assert problems(text) == [f"f.yaml:{expected} at steps[0].code"]


def test_templates_that_do_not_parse_are_mistakes() -> None:
    text = LLM + (
        "    system: |\n      Be kind.\n      Say é {{ a b }}.\n"
        '    prompt: "{% if x %}"\n'
        "    input:\n      a: [1, '{{ )']\n      b: {c: '{{ ok }}', d: \"x\\n{{\"}\n"
    )
    assert problems(text) == [
        "f.yaml:8:18: the template is malformed: unexpected identifier, expected end of variable block "
        "at steps[0].system",
        "f.yaml:9:22: the template is malformed: unexpected end of input, expected end of block "
        "at steps[0].prompt",
        "f.yaml:11:18: the template is malformed: unexpected `)` at steps[0].input.a[1]",
        "f.yaml:12:29: the template is malformed: unexpected end of input, expected expression "
        "(line 2 of its text) at steps[0].input.b.d",
    ]


@pytest.mark.parametrize(
    "template",
    [
        "{{ " + "-" * 100_000 + "1 }}",
        "{{ a" + ".a" * 100_000 + " }}",
        "{{ " + "not " * 100_000 + "1 }}",
        "{{ a" + "|a" * 100_000,
        "{% if a %}" + "{% elif a %}" * 100_000 + "{% endif %}",
        "{%- set x = " + "(" * 100_000,
        "{{ {'a': {'}}': 1}} " + "+ 1" * 100_000 + " }}",
        "{# {{ ' #}{{ ' }} ' ~ " + "-" * 100_000 + "1 }}",
        "{% raw %}{{ ' {%- endraw -%}{{ ' }} ' ~ " + "-" * 100_000 + "1 }}",
    ],
)
def test_templates_that_would_take_the_process_down_are_mistakes(template: str) -> None:
    (finding,) = template_findings(template, ())
    assert "the template has a tag of more than 500 parts" in finding.message


@pytest.mark.parametrize(
    "template",
    [
        "{{ a }}" * 1000 + " - . | " * 1000,
        "{% raw %}{{ " + "- " * 1000 + "{% endraw %}",
        "{{ '" + "}} - " * 1000 + "' }}",
        "{{ {'a': {'b': 1}} }}" + "- " * 1000,
    ],
)
def test_long_templates_are_fine(template: str) -> None:
    assert list(template_findings(template, ())) == []


def test_an_invalid_schema_is_a_mistake() -> None:
    text = (
        "slug: a\ninputs:\n  type: objct\n  properties: {a: {type: [5]}, b: {minLength: -1}, c: 7}\n"
        "steps:\n"
        "  - {id: a, type: llm, model: echo, output_schema: {properties: {x: {$ref: 'https://e.com/s.json'}}}}\n"
        "  - {id: b, type: llm, model: echo, output_schema: {$ref: '#/$defs/none'}}\n"
        "  - {id: c, type: llm, model: echo, output_schema: {$schema: 'http://x/y'}}\n"
        "  - {id: d, type: llm, model: echo, output_schema: {pattern: '('}}\n"
        "  - {id: e, type: llm, model: echo, output_schema: {type: array}}\n"
        "  - {id: f, type: llm, model: echo, output_schema: {type: [object, 'null']}}\n"
        "  - {id: g, type: llm, model: echo, output_schema: {$schema: 'http://json-schema.org/draft-07/schema#'}}\n"
    )
    types = "expected array, boolean, integer, null, number, object or string"
    bad = "not a valid JSON Schema:"
    inside = "only references inside the schema are followed"
    assert problems(text) == [
        f"f.yaml:3:9: {bad} {types}, found 'objct'; did you mean 'object'? at inputs.type",
        f"f.yaml:4:27: {bad} {types}, found 5 at inputs.properties.a.type[0]",
        f"f.yaml:4:47: {bad} -1 is less than the minimum of 0 at inputs.properties.b.minLength",
        f"f.yaml:4:55: {bad} expected a boolean (true or false) or an object, found 7 at inputs.properties.c",
        f"f.yaml:6:76: {bad} nothing is at 'https://e.com/s.json'; {inside} "
        'at steps[0].output_schema.properties.x["$ref"]',
        f"f.yaml:7:59: {bad} nothing is at '#/$defs/none'; {inside} at steps[1].output_schema[\"$ref\"]",
        f"f.yaml:8:52: {bad} Unknown meta-schema: 'http://x/y'. Custom meta-schemas must be registered in "
        "the registry before use at steps[2].output_schema",
        f'f.yaml:9:62: {bad} "(" is not a "regex" at steps[3].output_schema.pattern',
        "f.yaml:10:59: the schema must allow objects; inputs and outputs are always objects "
        "at steps[4].output_schema.type",
    ]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("temprature: 1", "unknown setting 'temprature'; did you mean 'temperature'?"),
        ("maxTokens: 1", "unknown setting 'maxTokens'; did you mean 'max_tokens'?"),
        ("timeout: 1", "unknown setting 'timeout'; a provider's own fields go into `extra_body`"),
    ],
)
def test_an_unknown_setting_is_a_mistake(setting: str, said: str) -> None:
    text = LLM + f"    settings:\n      seed: 1\n      {setting}\n"
    assert problems(text) == [f"f.yaml:8:7: {said} at steps[0].settings.{setting.partition(':')[0]}"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("temperature: hot", "expected `float`, got `str`"),
        ("logit_bias: {'5': high}", "expected `int`, got `str`"),
        (
            "anthropic_metadata: {}",
            "unknown setting 'anthropic_metadata'; a provider's own fields go into `extra_body`",
        ),
    ],
)
def test_a_setting_that_no_model_takes_is_a_mistake(setting: str, said: str) -> None:
    text = f"{LLM}    settings: {{{setting}}}\n"
    told = f"{said} at steps[0].settings.{setting.partition(':')[0]}"
    assert [line.split(": ", 1)[1] for line in problems(text.replace("echo", "openai:x"))] == [told]
    # It takes any, so that a flow can be tried out.
    parse_flow(text)


def test_the_settings_are_those_that_a_model_can_be_asked_with() -> None:
    set_by_the_engine = {"max_retries", "request_timeout", "timeout", "tool_choice"}
    of_no_use_in_one_request = {"cache", "citations", "first_event_timeout", "framing_announcement"}
    assert set(flow_models.SETTINGS) - {"stop", "stream"} == (
        set(ModelSettings.__annotations__) - set_by_the_engine - of_no_use_in_one_request
    )


def is_installed(provider: str) -> bool | None:
    """Whether the package of the provider is there; None for what is no provider."""
    try:
        infer_provider_class(provider)
    except ImportError:
        return False
    except ValueError:
        return None
    return True


def test_the_packages_of_providers_are_those_that_the_library_asks_for() -> None:
    names = set(re.findall(r"'([a-z-]+)'", inspect.getsource(infer_provider_class)))
    missing = {name for name in names if is_installed(name) is False}
    assert missing
    assert missing <= set(flow_models.PROVIDER_PACKAGES) <= names


@pytest.mark.parametrize("model", ["bedrock:nova", "gateway/bedrock:nova"])
def test_a_provider_whose_package_is_missing_is_a_warning(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEAD + f"  - {{id: a, type: llm, model: '{model}'}}\n"
    (warning,) = check_flow(text).warnings
    assert (warning.path, warning.line) == ("steps[0].model", 3)
    assert "'bedrock' is not installed on this machine" in warning.message
    assert 'pip install "pydantic-ai-slim[bedrock]"' in warning.message
    monkeypatch.setitem(flow_models.PROVIDER_PACKAGES, "bedrock", "json")
    assert check_flow(text).warnings == []


def test_the_families_of_settings_are_those_of_the_library() -> None:
    root = Path(pydantic_ai.models.__path__[0])
    named = {path: path.relative_to(root).parts[0].removesuffix(".py") for path in root.rglob("*.py")}
    families = {
        name
        for path, name in named.items()
        if re.search(rf"^    {name}_\w+: ", path.read_text("utf-8"), re.M)
    }
    assert {name for name in families if is_installed(name) is not None} == set(flow_models.OWN)


def test_a_flow_has_10_000_steps_at_most() -> None:
    steps = [{"id": f"s{i}", "type": "passthrough"} for i in range(10_005)]
    loop = {"id": "l", "type": "loop", "over": "x", "steps": steps}
    data = {"slug": "a", "steps": [loop, *steps]}
    (finding,) = flow_rules(USUAL.schema_limit_bytes).flow(data, own_providers=())
    assert finding.message == "the flow has more than 10,000 steps"
    assert path_text(finding.path) == "steps[0].steps[9999]"


def test_steps_are_nested_32_deep_at_most() -> None:
    inner: dict[str, Any] = {"id": "leaf", "type": "passthrough"}
    for level in range(31):
        inner = {"id": f"l{level}", "type": "parallel", "branches": {"a": [inner]}}
    assert step_count(parse_flow(json.dumps({"slug": "a", "steps": [inner]}))) == 1
    inner = {"id": "top", "type": "condition", "if": "x", "then": [inner]}
    (problem,) = problems(json.dumps({"slug": "a", "steps": [inner]}))
    assert "steps are nested deeper than 32 levels at steps[0].then[0].branches.a[0]" in problem


def test_schemas_are_compiled_once_and_never_fetched() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert compile_schema(schema) is compile_schema(copy.deepcopy(schema))
    with pytest.raises(ValueError, match="Retrieval is disabled"):
        compile_schema({"$ref": "http://127.0.0.1:9/schema.json"})


KINDS = get_args(Step)

MALFORMED: dict[Syntax, tuple[Any, str]] = {
    "template": ("{{ x", "template is malformed"),
    "templates": ({"a": ["{{ x"]}, "template is malformed"),
    "code": ("return (", "the code is not valid Python"),
    "expression": ("x +", "the expression is not valid Python"),
    "variable": ("two words", "cannot be a name in Python"),
    "model": ("nameless", "names no provider: write PROVIDER:MODEL, or `echo` to try it out"),
    "schema": ({"type": "objekt"}, "not a valid JSON Schema"),
}
REFERS: dict[Syntax, Any] = {
    "template": "{{ steps.gone.text }}",
    "templates": {"a": [{"b": "{{ steps.gone.text }}"}]},
    "code": "return steps['gone']",
    "expression": "steps['gone']['items']",
}
FIELDS = {
    f"{kind.__struct_config__.tag}-{field.name}": (kind, field)
    for kind in KINDS
    for field in fields_with_syntax(kind)
}
REFERRING = [name for name, (_, field) in FIELDS.items() if field.syntax in REFERS]


def test_every_kind_of_step_is_looked_into() -> None:
    assert len(KINDS) >= 7
    assert all("input" in {field.name for field in fields_with_syntax(kind)} for kind in KINDS)
    assert {field.syntax for _, field in FIELDS.values()} == set(get_args(Syntax))


@pytest.mark.parametrize("name", FIELDS)
def test_a_mistake_in_a_field_is_found(name: str) -> None:
    kind, field = FIELDS[name]
    value, message = MALFORMED[field.syntax]
    findings = list(flow_rules(1000).step(smallest_step(kind, **{field.name: value}), ()))
    assert any(message in each.message and each.path[0] == field.name for each in findings), findings


@pytest.mark.parametrize("name", REFERRING)
def test_the_check_of_a_flow_and_the_engine_see_the_same_references(name: str) -> None:
    kind, field = FIELDS[name]
    data = smallest_step(kind, **{field.name: REFERS[field.syntax]})
    (finding,) = unmet_references({"slug": "a", "steps": [data]})
    assert finding.path[:3] == ("steps", 0, field.name)
    assert "no step 'gone'" in finding.message
    assert mentioned_outputs(msgspec.convert(data, kind)) == frozenset({"gone"})


@pytest.mark.parametrize("kind", ["lllm", None, [], {}])
def test_of_an_unknown_kind_the_input_is_looked_into(kind: Any) -> None:
    assert syntaxes(kind) == {"input": "templates"}

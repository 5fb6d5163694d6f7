"""What templates make of names, what they cannot do, and that they can take down no process but their own."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.engine.payload import Payload
from runglass.engine.steps.scope import MANY_NAMES, Scope
from runglass.engine.workers import templates
from runglass.engine.workers.template_worker import Renderer, RenderRequest
from runglass.engine.workers.templates import Templates
from runglass.errors import StepFailure

DATA = {"a": 1, "l": [1, 2.5, None, True], "s": "x", "o": {"k": "é<>'\""}}
DATA_JSON = '{"a":1,"l":[1,2.5,null,true],"s":"x","o":{"k":"é<>\'\\""}}'
NAMES: dict[str, Any] = {
    "message": "hello",
    "data": DATA,
    "steps": {"fetch": {"items": [{"id": 7}], "odd key": 1}},
    "nothing": None,
    "yes": True,
    "half": 0.5,
    "large": 1e30,
    "huge": 10**30,
    "big": "x" * 1_000_000,
}


class Bench:
    """Templates whose processes live as long as the tests of this file."""

    templates: Templates


@pytest.fixture(scope="module", autouse=True)
def processes() -> Iterator[None]:
    Bench.templates = Templates()
    yield
    asyncio.run(Bench.templates.__aexit__())
    gc.collect()


def render(template: str, names: dict[str, Any]) -> str:
    return asyncio.run(Bench.templates.render(template, names))


def render_input(value: Any, names: dict[str, Any]) -> Any:
    return asyncio.run(Bench.templates.render_input(value, names))


def failure(template: str) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        render(template, NAMES)
    assert caught.value.code == "TEMPLATE_ERROR"
    assert not caught.value.may_retry
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("as it is: {}, { { }}, %}\n", "as it is: {}, { { }}, %}\n"),
        ("Correct: {{ message }}\n", "Correct: hello\n"),
        (" {{message}}{{ message }} ", " hellohello "),
        ("{{ steps.fetch.items[0].id }}", "7"),
        ("{{ steps['fetch'][\"odd key\"] }}", "1"),
        ("{{ data }} and {{ data.l }}", f"{DATA_JSON} and [1,2.5,null,true]"),
        ("{{ nothing }} {{ yes }} {{ half }} {{ huge }}", f"None True 0.5 {10**30}"),
        ("{{ large }}", "1" + "0" * 30 + ".0"),
        ("{{ data.o.k }}", "é<>'\""),
        ("{{ message|upper }}\n", "HELLO\n"),
        ("{{- message -}} .", "hello."),
        ("{{ data|tojson }}", DATA_JSON),
        ("{{ data.l|tojson(indent=2) }}", "[\n  1,\n  2.5,\n  null,\n  true\n]"),
        ("{% for x in data.l %}{{ loop.index }}={{ x }};{% endfor %}", "1=1;2=2.5;3=None;4=True;"),
        ("{% for key, x in data.o.items() %}{{ key }}={{ x }}{% endfor %}", "k=é<>'\""),
        ("{% if yes %}{% set m = message %}{{ m }}{% else %}{{ nobody }}{% endif %}", "hello"),
        ("{{ message }}{# not {{ nobody }} #}", "hello"),
        ("{% raw %}{{ nobody }}{% endraw %}", "{{ nobody }}"),
        ("{{ nobody|default('x') }}{% if nobody is defined %}y{% endif %}", "x"),
        ("{{ '}}' ~ message }}", "}}hello"),
        ('{{ "it\'s }}" ~ message }}', "it's }}hello"),
        ("{{ {'a': {'b': message}} }}", '{"a":{"b":"hello"}}'),
        ("{{ true }}{{ none }}", "TrueNone"),
        ("{{ message }}}", "hello}"),
    ],
)
def test_a_template_is_filled(template: str, text: str) -> None:
    assert render(template, NAMES) == text


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("{{ data }}", DATA),
        ("{{ data.l }}\n", [1, 2.5, None, True]),
        ("{{ half }}", 0.5),
        ("{{ nothing }}", None),
        ("{{- message -}}", "hello"),
        ("{{ data.l|first }}", 1),
        ("{{ data.l|map('string') }}", ["1", "2.5", "None", "True"]),
        ("{{ data.o.items() }}", [["k", "é<>'\""]]),
        ("{{ {'a': data.l} }}", {"a": [1, 2.5, None, True]}),
        ("{{ message|safe }}", "hello"),
        ("{{ 1 + 1 }}", 2),
        ("{{ '}}' }}", "}}"),
        ("{{ data.a }} {{ data.a }}", "1 1"),
        ("{{ data.l }}!", "[1,2.5,null,true]!"),
        ("plain", "plain"),
        (
            {"a": ["{{ data.l }}", {"b": "x{{ message }}"}], "{{ key }}": 5},
            {"a": [DATA["l"], {"b": "xhello"}], "{{ key }}": 5},
        ),
        (7, 7),
        (None, None),
    ],
)
def test_an_input_gets_values_where_a_string_is_one_expression(value: Any, result: Any) -> None:
    assert render_input(value, NAMES) == result


def test_a_value_that_a_path_leads_to_is_not_copied() -> None:
    assert render_input("{{ data.l }}", NAMES) is DATA["l"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ nobody }}", "`nobody` does not exist (line 1)"),
        ("a\nb {{ steps.ghost.y }}", "`steps.ghost` does not exist (line 2)"),
        ("{{ data.l[9] }}", "`data.l[9]` does not exist (line 1)"),
        ("{{ message.x }}", "`message.x` does not exist (line 1)"),
        ("{% if nobody %}{% endif %}", "`nobody` does not exist (line 1)"),
        ("{{ nobody|upper }}", "`nobody` does not exist (line 1)"),
        (
            "\n{{ message",
            "the template is malformed: unexpected end of input, expected end of variable block (line 2)",
        ),
        ("{% nonsense %}", "the template is malformed: unknown statement nonsense (line 1)"),
        ("{{ message|nofilter }}", "filter nofilter is unknown (line 1)"),
        ("{{ 1 / 0 }}", "unable to calculate 1 / 0 (line 1)"),
        ("{% include 'x' %}", "tried to include non-existing template 'x' (line 1)"),
        ("{% extends '<string>' %}", 'template "<string>" does not exist (line 1)'),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "recursion limit exceeded (line 1)"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_its_line(template: str, message: str) -> None:
    assert failure(template).message == message


def test_an_expression_of_an_input_fails_for_an_unknown_name_like_a_text() -> None:
    for value in ("{{ nobody }}", "{{ nobody|upper }}", {"a": ["{{ steps.ghost }}"]}):
        with pytest.raises(StepFailure, match="does not exist"):
            render_input(value, NAMES)


def test_a_key_that_is_missing_is_not_taken_for_a_method() -> None:
    assert render("{{ steps.fetch.items[0] }}", NAMES) == '{"id":7}'
    assert "is there no such key" in failure("{{ data.items }}").message
    with pytest.raises(StepFailure, match="is there no such key"):
        render_input("{{ data.items }}", NAMES)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}",
        "{% for i in range(100) %}{{ big }}{% endfor %}",
        "{{ big }}" * 17,
        "{{ 'a' * 10000000000 }}",
        "{{ '%1000000000d'|format(1) }}",
        # Templates that minijinja itself does not limit, and that end its process.
        "{{ [[['a'] * 1000] * 1000] * 1000 }}",
        "{% set n = namespace(s=1) %}{% for i in range(40) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
        "{{ '{0:1000000000}'.format(1) }}",
        "{{ " + "-" * 30000 + "1 }}",
        "{% if 1 %}" + "{% elif 1 %}" * 30000 + "{% endif %}",
    ],
)
def test_a_template_that_takes_too_much_fails_alone(template: str) -> None:
    assert any(word in failure(template).message for word in ("too much", "more than"))
    assert render("{{ message|upper }}", NAMES) == "HELLO"


def test_templates_cannot_change_what_they_are_given() -> None:
    names = {"data": {"a": [1], "b": {"c": 2}}}
    for code in ("data.pop('a')", "data.a.append(2)", "data['clear']()", "(data|attr('update'))({'x': 1})"):
        render(f"{{{{ {code} }}}}", names)
        assert names == {"data": {"a": [1], "b": {"c": 2}}}


@pytest.mark.parametrize(
    "code",
    ["''.__class__", "data.__class__", "data.items.__self__", "'{0.__class__}'.format(data)", "nobody()"],
)
def test_there_is_no_way_into_python(code: str) -> None:
    failure(f"{{{{ {code} }}}}")


def test_only_mentioned_names_leave_this_process() -> None:
    names = {"message": "hello", "steps": object()}
    assert render("steps: {{ message|upper }} steps", names) == "HELLO".join(["steps: ", " steps"])
    with pytest.raises(TypeError):
        render("{{ steps|upper }}", names)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_a_process_writes_values_like_the_event_loop(value: Any) -> None:
    here = render("<{{ value }}>", {"value": value})
    assert rendered("<{{ value }}>", {"value": value}) == here


@given(st.text("{}%#'\" .[]a-", max_size=30))
def test_text_filled_here_equals_text_filled_in_the_process(template: str) -> None:
    """A template that is filled here gets the same text there: no syntax is mistaken for text."""
    names = {"a": "A"}
    plan = templates.make_plan(template)
    if plan.pieces is None or (here := templates.filled(plan.pieces, names)) is None:
        return
    assert rendered(template, names) == here


def rendered(template: str, names: dict[str, Any]) -> Any:
    """As a process does it."""
    return msgspec.json.decode(Renderer().answer(RenderRequest(template, names, "text")))


# All that the template engine gives a meaning to, in one way or another, and our own parameters.
WORDS = (
    "self loop range super caller _ debug namespace dict cycler joiner varargs kwargs name source context ctx"
    " args template names value want block macro call filter set with import include extends from as"
    " recursive ignore missing autoescape raw do continue break scoped endfor endif for if elif else and or"
    " in is True"
)


@pytest.mark.parametrize("word", WORDS.split())
def test_no_name_of_a_value_is_in_the_way_of_rendering(word: str) -> None:
    names = {word: "mine", "other": "x"}
    assert rendered("{{ other|upper }}", names) == "X"
    if word not in {"not", "True"}:
        assert rendered(f"{{{{ {word}|upper }}}}", names) == "MINE"


async def test_a_process_that_renders_for_a_project_renders_for_no_other() -> None:
    async with Templates() as templates:
        for project_id in (1, 2):
            assert await templates.render("{{ s|upper }}", {"s": "x"}, project_id=project_id) == "X"
        long = "{{ s|upper }}" + "." * 20_000
        given = await templates.render_input({"a": [long, "{{ s|upper }}"]}, {"s": "x"}, project_id=7)
        assert given["a"][0].startswith("X.")
        assert [project_id for project_id, _ in templates.idle] == [1, 2, 7]


def test_a_template_that_makes_many_long_numbers_is_refused() -> None:
    names = {"l": [10**600] * 3_000}
    assert render_input("{{ l|list }}", names) == names["l"]
    with pytest.raises(StepFailure, match=r"as long to be read as more than 2,000,000 values"):
        render_input("{{ l|list + l|list }}", names)


paths = st.sampled_from(["a", "a.b", "a.b.c", "a['b']", 'a["b"].c', "a.d[0]", "a.d", "a[k]", "k", "a.ghost"])
glue = st.sampled_from([" ~ ", " ~ '[' ~ ", ' ~ "[" ~ ', ' ~ "]" ~ ', " ~ 'a.b' ~ ", " == ", " in "])


@given(st.lists(st.tuples(paths, glue), min_size=1, max_size=5))
def test_a_template_makes_the_same_of_what_is_sent_as_of_everything(parts: list[tuple[str, str]]) -> None:
    code = "".join(path + between for path, between in parts) + "k"
    names = {"a": {"b": {"c": "x", "e": 1}, "d": ["y", "z"]}, "k": "b"}
    template = f"{{{{ {code} }}}}"
    sent = templates.picked(templates.mentions_of(template), names)
    assert told(template, sent) == told(template, names)


def told(template: str, names: dict[str, Any]) -> str:
    """The text, or the reason why there is none."""
    try:
        return str(rendered(template, names))
    except StepFailure as failure:
        return failure.message


@pytest.mark.parametrize("count", [3, MANY_NAMES + 1])
def test_an_input_hides_loop_names_and_is_not_changed(count: int) -> None:
    around = Scope({"message": "hello"}).iteration({"item": 1, "index": 0})
    around.keep("before", Payload({"text": "b"}))
    data = {"item": "mine", "attempt": "mine too", **{f"n{number}": number for number in range(count)}}
    names = around.names(data, attempt=2)
    assert dict(names) == {
        "initial": {"message": "hello"},
        "steps": {"before": {"text": "b"}},
        "index": 0,
        **data,
    }
    assert "n1" in names
    assert names.get("nothing") is None
    names.clear()
    assert dict(names) == {}
    assert len(data) == count + 2

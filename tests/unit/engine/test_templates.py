"""What templates make of names, what they cannot do, and that they can take down no process but their own."""

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.engine import templates
from runglass.engine.rendering import Ask, Renderer
from runglass.engine.templates import RenderProcess, render, render_input
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


def failure(template: str, names: dict[str, Any] | None = None) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        render(template, NAMES if names is None else names)
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
        "{% set n = namespace(s='a') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{{ 'a'" + "|replace('a', 'aaaaaaaaaa')" * 10 + " }}",
        "{{ '%1000000000d'|format(1) }}",
        # What minijinja itself does not bound, and dies of.
        "{{ [[['a'] * 1000] * 1000] * 1000 }}",
        "{% set n = namespace(s=1) %}{% for i in range(40) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
        "{{ '{0:1000000000}'.format(1) }}",
        "{{ " + "-" * 30000 + "1 }}",
        "{% if 1 %}" + "{% elif 1 %}" * 30000 + "{% endif %}",
    ],
)
def test_a_template_that_takes_too_much_fails_alone(template: str) -> None:
    started = time.monotonic()
    assert any(word in failure(template).message for word in ("too much", "more than"))
    assert time.monotonic() - started < 8
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
def test_both_ways_of_filling_write_the_same(value: Any) -> None:
    here = render("<{{ value }}>", {"value": value})
    there = Renderer().answer(Ask("<{{ value }}>", {"value": value}, "text"))
    assert there.fault is None
    assert there.value == here


@given(st.text("{}%#'\" .[]a-", max_size=30))
def test_what_is_understood_here_is_understood_there(template: str) -> None:
    """A template that is filled here gets the same text there: no syntax is mistaken for text."""
    names = {"a": "A"}
    plan = templates._make_plan(template)
    if plan.pieces is None or (here := templates._filled(plan.pieces, names)) is None:
        return
    there = Renderer().answer(Ask(template, names, "text"))
    assert (there.value, there.fault) == (here, None)


@pytest.mark.parametrize(
    "template",
    [
        "{{" * 200_000,
        "{{ a" + ".b" * 200_000,
        "{{ '" * 100_000,
        "{{" + " " * 500_000,
        "{{ a['" * 100_000,
        "{%" * 300_000,
    ],
)
def test_reading_a_template_takes_linear_time(template: str) -> None:
    started = time.monotonic()
    templates._make_plan(template)
    assert time.monotonic() - started < 2


@pytest.fixture
def process() -> Iterator[RenderProcess]:
    process = RenderProcess()
    yield process
    process.close()
    gc.collect()


def test_threads_take_turns(process: RenderProcess) -> None:
    texts: dict[int, Any] = {}

    def ask(n: int) -> None:
        texts[n] = process.ask(Ask("{{ n * 2 }}", {"n": n}, "text")).value

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {n: str(n * 2) for n in range(20)}


def test_a_process_that_was_killed_is_replaced_and_the_template_not_blamed(process: RenderProcess) -> None:
    assert process.ask(Ask("{{ 1 }}", {}, "text")).value == "1"
    started = process._process
    assert started is not None
    started.kill()
    started.wait()
    assert process.ask(Ask("{{ 2 }}", {}, "text")).value == "2"


def test_a_process_that_does_not_start_is_no_fault_of_the_template(
    process: RenderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match="no process for templates starts"):
        process.ask(Ask("{{ 1 }}", {}, "text"))


def test_a_program_that_used_templates_ends_in_silence() -> None:
    code = "from runglass.engine.templates import render; print(render('{{ a|upper }}', {'a': 'x'}))"
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (ended.stdout, ended.stderr) == ("X\n", "")

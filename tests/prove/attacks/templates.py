"""Templates that compute, repeat or nest without end."""

import functools

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field

FAMILY = Family("templates")

TEMPLATES: dict[str, tuple[str, str]] = {
    "range-billion": ("a range of a billion", "{{ range(1000000000) | list | length }}"),
    "nested-loops": (
        "five loops in one another",
        "".join("{% for " + name + " in range(9999) %}" for name in "abcde") + "x" + "{% endfor %}" * 5,
    ),
    "string-repeat": ("texts that double", "{% set s = 'x' * 100000000 %}{{ (s ~ s) * 1000 }}"),
    "list-product": ("lists of lists of lists", "{{ [[[1] * 1000] * 1000] * 1000 }}"),
    "recursive-macro": (
        "a macro that calls itself twice",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    ),
    "huge-filters": (
        "filters over filters over a large list",
        "{{ range(99999) | map('string') | join(',') | list | sort | unique | batch(1) | list | tojson }}",
    ),
    "deep-brackets": (
        "an expression nested 100,000 levels deep",
        "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    ),
    "long-chain": ("a chain of 200,000 filters", "{{ message" + " | trim" * 200_000 + " }}"),
    "big-power": ("powers of powers", "{{ 9 ** 9 ** 9 ** 9 }}{{ 99999999 ** 99999999 }}"),
    "wide-format": (
        "a format that is a gigabyte wide",
        "{{ '%1000000000d' | format(1) }}{{ 'x' | center(1000000000) }}",
    ),
}


async def _prompted(field: Field, prompt: str) -> None:
    await field.flood(lambda _: field.override({"prompt": prompt}), beside=4, per_s=8)


@FAMILY.attack("run", finding=4)
async def forty_templates(field: Field) -> None:
    """40 templates at once that take all the time that they get."""
    prompt = TEMPLATES["nested-loops"][1]
    await field.together(40, lambda _: field.override({"prompt": prompt}))


for name, (about, template) in TEMPLATES.items():
    FAMILY.add(name, about, functools.partial(_prompted, prompt=template), role="run")


@FAMILY.attack("run", finding=8)
async def parameter_self(field: Field) -> None:
    """Parameters named like arguments of our own functions: `self`, `name`, `cls`."""
    for name in ("self", "source", "name", "cls", "kwargs", "environment", "args", "loop"):
        fields = {"prompt": f"{{{{ message | upper }}}}{{{{ {name} | upper }}}}"}
        answer = await field.override(fields, parameters={name: "v"})
        if answer.status != 200:
            field.complain(f"a parameter named {name!r} gave {answer.status}: {answer.body[:200]!r}")


@FAMILY.attack("run")
async def many_names(field: Field) -> None:
    """Templates over 9 MB of values, of which they need one."""
    parameters = {f"n{number}": "x" * 80 for number in range(90_000)}
    await field.flood(
        lambda _: field.execute("answer", {"message": "x", "parameters": parameters}), beside=3, per_s=6
    )

"""Templates that compute, repeat or nest without end."""

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field

FAMILY = Family("templates")

LOOPS = "".join("{% for " + name + " in range(9999) %}" for name in "abcde") + "x" + "{% endfor %}" * 5
TEMPLATES = {
    "range-billion": "{{ range(1000000000) | list | length }}",
    "nested-loops": LOOPS,
    "string-repeat": "{% set s = 'x' * 100000000 %}{{ (s ~ s) * 1000 }}",
    "list-product": "{{ [[[1] * 1000] * 1000] * 1000 }}",
    "recursive-macro": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "huge-filters": "{{ range(99999) | map('string') | join(',') | list | sort | unique | batch(1)"
    " | list | tojson }}",
    "deep-brackets": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "long-chain": "{{ message" + " | trim" * 200_000 + " }}",
    "big-power": "{{ 9 ** 9 ** 9 ** 9 }}{{ 99999999 ** 99999999 }}",
    "wide-format": "{{ '%1000000000d' | format(1) }}{{ 'x' | center(1000000000) }}",
}


async def _prompted(field: Field, prompt: str) -> None:
    await field.flood(lambda _: field.override({"prompt": prompt}), beside=4, per_s=8)


@FAMILY.attack("run")
async def forty_templates(field: Field) -> None:
    await field.together(40, lambda _: field.override({"prompt": LOOPS}))


FAMILY.each("run", _prompted, TEMPLATES)


@FAMILY.attack("run")
async def many_names(field: Field) -> None:
    """Templates over 9 MB of values, of which they need one."""
    body = {"message": "x", "parameters": {f"n{number}": "x" * 80 for number in range(90_000)}}
    await field.flood(lambda _: field.execute("answer", body), beside=3, per_s=6)

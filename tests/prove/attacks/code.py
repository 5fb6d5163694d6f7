"""Templates and code steps that want the whole machine: of the attacker's admin, run by its `run` key."""

from tests.prove.attacking.attack import COPY, Family, Field, code

BY_TEMPLATES = Family("templates")

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


@BY_TEMPLATES.attack("run")
async def forty_templates(field: Field) -> None:
    await field.together(40, lambda _: field.override({"prompt": LOOPS}))


BY_TEMPLATES.each("run", _prompted, TEMPLATES)


@BY_TEMPLATES.attack("run")
async def many_names(field: Field) -> None:
    """Templates over 9 MB of values, of which they need one."""
    body = {"message": "x", "parameters": {f"n{number}": "x" * 80 for number in range(90_000)}}
    await field.flood(lambda _: field.execute("answer", body), beside=3, per_s=6)


BY_CODE = Family("code")

CODES = {
    "memory-list": "a = []\nwhile True:\n    a.append('x' * 100000)",
    "memory-text": "a = 'x'\nwhile True:\n    a = a + a",
    "recursion": "def f(n):\n    return f(n + 1) + f(n + 2)\nreturn {'a': f(0)}",
    "code-power": "return {'a': len(str(9 ** 9 ** 9))}",
    "big-product": "a = 3\nwhile True:\n    a = a * a",
    "format-wide": "return {'a': '{:>1000000000}'.format(1), 'b': f'{1:>999999999}'}",
    "print-flood": "while True:\n    print('x' * 10000)",
    # Keys that never agree.
    "sort-hostile": "n = [0]\ndef key(v):\n    n[0] = (n[0] * 7919 + 1) % 104729\n    return n[0]\n"
    "while True:\n    sorted(list(range(100000)), key=key)",
    "same-hashes": "a = {}\nfor n in range(10**9):\n    a[n * (2**61 - 1)] = n\nreturn a",
    "suspensions": "while True:\n    try:\n        open('/etc/passwd')\n    except Exception:\n        pass",
    "sleeper": "import time\nwhile True:\n    time.sleep(0.001)",
    "catastrophic-re": "import re\nreturn {'a': bool(re.match('(a|a|aa)+$', 'a' * 60 + 'b'))}",
    "deep-result": "a = []\nfor n in range(100000):\n    a = [a]\nreturn {'a': a}",
    # Holds itself 2^30 times.
    "shared-result": "a = [1]\nfor n in range(30):\n    a = [a, a]\nreturn {'a': a}",
    "except-everything": "while True:\n    try:\n        a = 'x' * 10**9\n    except BaseException:\n"
    "        pass",
    "traceback-bomb": "def f(n):\n    try:\n        raise ValueError('x' * 10000)\n"
    "    except ValueError as e:\n        raise KeyError('y' * 10000) from e\nfor n in range(10**6):\n"
    "    try:\n        f(n)\n    except KeyError as e:\n        last = e\nraise last",
    "great-exponents-returned": "return {'a': [1e300] * 1_000_000}",
    "long-code": "return {'a': " + "(" * 49_000 + "1" + ")" * 49_000 + "}",
}


async def _run(field: Field, text: str) -> None:
    slug = await field.publish("code", code(text))
    await field.flood(lambda _: field.execute(slug), beside=4, per_s=8)


@BY_CODE.attack("run", leaves_work=True)
async def forty_loops(field: Field) -> None:
    await field.jobs(code("while True:\n    pass"), 40)


BY_CODE.each("run", _run, CODES)


@BY_CODE.attack("run")
async def hostile_expressions(field: Field) -> None:
    """Loops over, and conditions of, expressions that never end."""
    endless = "sum(x * x for x in range(10**12))"
    over = {"id": "each", "type": "loop", "over": f"[{endless}]", "steps": COPY}
    choice = {"id": "if", "type": "condition", "if": f"{endless} > 1", "then": COPY}
    slugs = [await field.publish("over", [over]), await field.publish("choice", [choice])]
    await field.flood(lambda n: field.execute(slugs[n % 2]), beside=6, per_s=8)

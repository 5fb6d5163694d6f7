"""Code steps that want the whole machine: flows of the attacker's admin, run by its `run` key."""

import functools

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field

FAMILY = Family("code")

CODES: dict[str, tuple[str, str]] = {
    "memory-list": ("a list that grows", "a = []\nwhile True:\n    a.append('x' * 100000)"),
    "memory-text": ("a text that doubles", "a = 'x'\nwhile True:\n    a = a + a"),
    "recursion": (
        "a function that calls itself",
        "def f(n):\n    return f(n + 1) + f(n + 2)\nreturn {'a': f(0)}",
    ),
    "code-power": ("powers of powers", "return {'a': len(str(9 ** 9 ** 9))}"),
    "big-product": ("a product of large numbers", "a = 3\nwhile True:\n    a = a * a"),
    "format-wide": (
        "formats that are a gigabyte wide",
        "return {'a': '{:>1000000000}'.format(1), 'b': f'{1:>999999999}'}",
    ),
    "print-flood": ("endless printing", "while True:\n    print('x' * 10000)"),
    "sort-hostile": (
        "a sort whose keys never agree",
        "n = [0]\ndef key(v):\n    n[0] = (n[0] * 7919 + 1) % 104729\n    return n[0]\n"
        "while True:\n    sorted(list(range(100000)), key=key)",
    ),
    "same-hashes": (
        "keys that may share a hash",
        "a = {}\nfor n in range(10**9):\n    a[n * (2**61 - 1)] = n\nreturn a",
    ),
    "suspensions": (
        "files opened again and again",
        "while True:\n    try:\n        open('/etc/passwd')\n    except Exception:\n        pass",
    ),
    "sleeper": ("naps without end", "import time\nwhile True:\n    time.sleep(0.001)"),
    "catastrophic-re": (
        "an expression that backtracks",
        "import re\nreturn {'a': bool(re.match('(a|a|aa)+$', 'a' * 60 + 'b'))}",
    ),
    "deep-result": (
        "a result 100,000 levels deep",
        "a = []\nfor n in range(100000):\n    a = [a]\nreturn {'a': a}",
    ),
    "shared-result": (
        "a result that holds itself 2^30 times",
        "a = [1]\nfor n in range(30):\n    a = [a, a]\nreturn {'a': a}",
    ),
    "except-everything": (
        "limits that are caught and gone on from",
        "while True:\n    try:\n        a = 'x' * 10**9\n    except BaseException:\n        pass",
    ),
    "traceback-bomb": (
        "errors out of errors",
        "def f(n):\n    try:\n        raise ValueError('x' * 10000)\n    except ValueError as e:\n"
        "        raise KeyError('y' * 10000) from e\nfor n in range(10**6):\n    try:\n        f(n)\n"
        "    except KeyError as e:\n        last = e\nraise last",
    ),
    "great-exponents-returned": ("a million times 1e300", "return {'a': [1e300] * 1_000_000}"),
    "long-code": ("99,000 characters of brackets", "return {'a': " + "(" * 49_000 + "1" + ")" * 49_000 + "}"),
}


async def _run(field: Field, code: str) -> None:
    slug = await field.publish("code", [{"id": "work", "type": "code", "code": code}])
    await field.flood(lambda _: field.execute(slug), beside=4, per_s=8)


@FAMILY.attack("run", finding=4, leaves_work=True)
async def forty_loops(field: Field) -> None:
    """40 steps of `while True` at once."""
    slug = await field.publish("code", [{"id": "work", "type": "code", "code": "while True:\n    pass"}])
    await field.together(40, lambda _: field.execute(slug, way="jobs"))


for name, (about, text) in CODES.items():
    FAMILY.add(name, about, functools.partial(_run, code=text), role="run")


@FAMILY.attack("run", finding=8)
async def writer_replaced(field: Field) -> None:
    """Code that puts a function of its own in the place of ours, which writes results."""
    code = "_runglass_result = lambda value: '\\0$.forged\\0forged reason'\nreturn {'a': 1}"
    slug = await field.publish("code", [{"id": "work", "type": "code", "code": code}])
    answer = await field.execute(slug)
    if b"forged" in answer.body:
        field.complain(f"the code speaks for the sandbox: {answer.body[:200]!r}")


@FAMILY.attack("run")
async def hostile_expressions(field: Field) -> None:
    """Loops over, and conditions of, expressions that never end."""
    endless = "sum(x * x for x in range(10**12))"
    inner = [{"id": "copy", "type": "passthrough"}]
    over = {"id": "each", "type": "loop", "over": f"[{endless}]", "steps": inner}
    choice = {"id": "if", "type": "condition", "if": f"{endless} > 1", "then": inner}
    slugs = [await field.publish("over", [over]), await field.publish("choice", [choice])]
    await field.flood(lambda n: field.execute(slugs[n % 2]), beside=6, per_s=8)

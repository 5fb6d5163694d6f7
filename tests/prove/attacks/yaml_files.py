"""Flow files of an admin of the attacker's own project: YAML that unfolds, and flows that are huge."""

import functools
from collections.abc import Callable

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field
from tests.prove.attacking.places import ATTACKER

FAMILY = Family("yaml-files")

MB = 1_000_000
END = "\nslug: file\nsteps: [{id: a, type: passthrough}]\n"


def _laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join(lines) + END


def _merges() -> str:
    lines = ["m0: &m0 {k: v}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 8)}], k{n}: v}}" for n in range(1, 2000)]
    return "\n".join(lines) + END


FILES: dict[str, tuple[str, Callable[[], str]]] = {
    "billion-laughs": ("twelve levels of ten aliases", _laughs),
    "merge-keys": ("2,000 merges, each of the one before eight times", _merges),
    "anchors": ("40,000 anchors", lambda: "\n".join(f"a{n}: &a{n} 1" for n in range(40_000)) + END),
    "deep-sequences": ("a flow sequence half a million levels deep", lambda: "a: " + "[" * (MB // 2) + END),
    "deep-blocks": ("block sequences 100,000 levels deep", lambda: "a:\n " + "- " * 100_000 + "x" + END),
    "long-keys": (
        "keys of 100,000 characters, and ? keys",
        lambda: ("? " + "k" * 100_000 + "\n: 1\n") * 9 + END,
    ),
    "tags": (
        "tags that would make objects",
        lambda: "a: !!python/object/apply:os.system [id]\n" * 20_000 + END,
    ),
    "huge-scalars": (
        "numbers of 100,000 digits in every base, and dates",
        lambda: "".join(f"n{n}: 0x{'f' * 100_000}\nd{n}: 2001-01-01\n" for n in range(9)) + END,
    ),
    "mistakes": (
        "20,000 steps of a type that there is not",
        lambda: (
            "slug: file\nsteps:\n" + "".join(f"- {{id: s{n}, type: lmm, promt: x}}\n" for n in range(20_000))
        ),
    ),
}


async def _pushed(field: Field, make: Callable[[], str]) -> None:
    text = make().encode()[: MB - 10]
    await field.flood(lambda _: _push(field, text), beside=4, per_s=6)


async def _push(field: Field, text: bytes) -> None:
    await field.call("PUT", f"/flows/{ATTACKER}/file", text)


@FAMILY.attack("admin", finding=4)
async def twelve_pushes(field: Field) -> None:
    """12 pushes at once of 1 MB of YAML that is slow to read."""
    text = (("- {a: [1, {b: 'c'}], d: \"e\"}\n" * 40_000)[: MB - 100]).encode()
    await field.together(12, lambda _: _push(field, b"slug: file\nsteps:\n" + text))


for name, (about, make_text) in FILES.items():
    FAMILY.add(name, about, functools.partial(_pushed, make=make_text), role="admin")


@FAMILY.attack("admin")
async def ten_thousand_steps(field: Field) -> None:
    """Flows of 10,000 steps, pushed, published and started again and again."""
    text = (
        "slug: file\nsteps:\n" + "".join(f"- {{id: s{n}, type: passthrough}}\n" for n in range(10_000))
    ).encode()

    async def one(_: int) -> None:
        await _push(field, text)
        await field.call("POST", f"/flows/{ATTACKER}/file/publish")
        await field.execute("file", way="jobs")

    await field.flood(one, beside=2, per_s=2)


@FAMILY.attack("admin")
async def expressions(field: Field) -> None:
    """Expressions and code that are slow to parse: 90,000 brackets, minus signs, and comprehensions."""
    hostile = (
        "(" * 90_000,
        "-" * 90_000 + "1",
        "[" + "[x for x in " * 8000,
        "f'" + "{" * 40_000,
        "a." * 40_000,
    )
    steps = "".join(
        f'- {{id: s{n}, type: condition, if: "{text}", then: [{{id: t{n}, type: passthrough}}]}}\n'
        for n, text in enumerate(hostile)
    )
    await field.flood(lambda _: _push(field, f"slug: file\nsteps:\n{steps}".encode()), beside=4, per_s=6)


@FAMILY.attack("admin")
async def publish_storm(field: Field) -> None:
    """A new draft, published as a version, 60 times a second."""

    async def one(number: int) -> None:
        await _push(field, f"slug: file\nname: n{number}\nsteps: [{{id: a, type: passthrough}}]\n".encode())
        await field.call("POST", f"/flows/{ATTACKER}/file/publish")

    await field.flood(one, beside=4, per_s=60)


@FAMILY.attack("admin")
async def many_flows(field: Field) -> None:
    """A new flow 100 times a second, and the list of all of them."""

    async def one(number: int) -> None:
        text = f"slug: file-{number}\nsteps: [{{id: a, type: passthrough}}]\n".encode()
        await field.call("PUT", f"/flows/{ATTACKER}/file-{number}", text)
        if number % 10 == 0:
            await field.call("GET", "/flows")

    await field.flood(one, beside=4, per_s=100)

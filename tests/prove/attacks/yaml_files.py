"""Flow files of an admin of the attacker's own project: YAML that unfolds, and flows that are huge."""

from collections.abc import Callable

from tests.prove.attacking.attack import Call, Family
from tests.prove.attacking.field import Field
from tests.prove.attacking.places import ATTACKER

FAMILY = Family("yaml-files")

MB = 1_000_000
END = "\nslug: file\nsteps: [{id: a, type: passthrough}]\n"
STEPS = "slug: file\nsteps:\n"


def _laughs() -> str:
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *lines]) + END


def _merges() -> str:
    lines = [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 8)}], k{n}: v}}" for n in range(1, 2000)]
    return "\n".join(["m0: &m0 {k: v}", *lines]) + END


def _expressions() -> str:
    hostile = (
        "(" * 90_000,
        "-" * 90_000 + "1",
        "[" + "[x for x in " * 8000,
        "f'" + "{" * 40_000,
        "a." * 40_000,
    )
    return STEPS + "".join(
        f'- {{id: s{n}, type: condition, if: "{text}", then: [{{id: t{n}, type: passthrough}}]}}\n'
        for n, text in enumerate(hostile)
    )


FILES: dict[str, Callable[[], str]] = {
    "billion-laughs": _laughs,
    "merge-keys": _merges,
    "anchors": lambda: "\n".join(f"a{n}: &a{n} 1" for n in range(40_000)) + END,
    "deep-sequences": lambda: "a: " + "[" * (MB // 2) + END,
    "deep-blocks": lambda: "a:\n " + "- " * 100_000 + "x" + END,
    "long-keys": lambda: ("? " + "k" * 100_000 + "\n: 1\n") * 9 + END,
    "tags": lambda: "a: !!python/object/apply:os.system [id]\n" * 20_000 + END,
    "huge-scalars": lambda: "".join(f"n{n}: 0x{'f' * 100_000}\nd{n}: 2001-01-01\n" for n in range(9)) + END,
    "mistakes": lambda: STEPS + "".join(f"- {{id: s{n}, type: lmm, promt: x}}\n" for n in range(20_000)),
    "expressions": _expressions,
}


async def _push(field: Field, text: str) -> None:
    await field.call("PUT", f"/flows/{ATTACKER}/file", text.encode()[: MB - 10])


async def _publish(field: Field, text: str) -> None:
    await _push(field, text)
    await field.call("POST", f"/flows/{ATTACKER}/file/publish")


async def _pushed(field: Field, make: Callable[[], str]) -> None:
    text = make()
    await field.flood(lambda _: _push(field, text), beside=4, per_s=6)


@FAMILY.attack("admin")
async def twelve_pushes(field: Field) -> None:
    """12 pushes at once of 1 MB of YAML that is slow to read."""
    await field.together(12, lambda _: _push(field, STEPS + "- {a: [1, {b: 'c'}], d: \"e\"}\n" * 40_000))


FAMILY.each("admin", _pushed, FILES)


@FAMILY.attack("admin")
async def ten_thousand_steps(field: Field) -> None:
    """Flows of 10,000 steps, pushed, published and started again and again."""
    text = STEPS + "".join(f"- {{id: s{n}, type: passthrough}}\n" for n in range(10_000))

    async def one(_: int) -> None:
        await _publish(field, text)
        await field.job("file")

    await field.flood(one, beside=2, per_s=2)


async def _made(field: Field, number: int) -> None:
    """A new flow, and now and then the list of all."""
    text = f"slug: file-{number}\nsteps: [{{id: a, type: passthrough}}]\n".encode()
    await field.call("PUT", f"/flows/{ATTACKER}/file-{number}", text)
    if number % 10 == 0:
        await field.call("GET", "/flows")


STORMS: dict[str, Call] = {
    "publish-storm": lambda field, n: _publish(field, f"name: n{n}{END}"),
    "many-flows": _made,
}
FAMILY.floods("admin", 4, 80, STORMS)

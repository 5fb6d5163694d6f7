"""One project that wants all places: iterations, waits, branches, retries and runs without number."""

from tests.prove.attacking.attack import COPY, Family, Steps, loop
from tests.prove.attacking.field import Field

FAMILY = Family("floods")


def _nested(levels: int) -> Steps:
    steps = COPY
    for level in range(levels):
        steps = loop(100, steps, name=f"l{level}", beside=10)
    return steps


RETRY = {"max_attempts": 100, "initial_delay_ms": 0, "max_delay_ms": 0}
FAIL: Steps = [{"id": "fail", "type": "code", "code": "return 1", "retry": RETRY}]
SPIN: Steps = [{"id": "spin", "type": "code", "code": "while True:\n    pass", "on_error": "continue"}]
SAY: Steps = [{"id": "say", "type": "llm", "model": "echo", "prompt": "{{ 'word ' * 20000 }}"}]
NAP: Steps = [{"id": "wait", "type": "wait", "ms": 0}]
DAY: Steps = [{"id": "wait", "type": "wait", "ms": 86_400_000}]
BRANCHES = {f"b{n}": loop(1000, [{"id": f"c{n}", "type": "passthrough"}], name=f"l{n}") for n in range(2000)}

FLOWS: dict[str, Steps] = {
    "a-million-iterations": loop(1_000_000),
    "a-million-side-by-side": loop(1_000_000, beside=1000),
    "hundred-thousand-naps": loop(100_000, NAP, beside=100),
    "ten-loops-of-a-hundred": _nested(10),
    "two-thousand-branches": [{"id": "all", "type": "parallel", "branches": BRANCHES}],
    "retry-storm": loop(10_000, FAIL, beside=200),
    "slow-code-in-a-loop": loop(1000, SPIN, beside=1000),
    "echo-storm": loop(10_000, SAY, beside=100),
}


async def _started(field: Field, steps: Steps, *, times: int = 1) -> None:
    slug = await field.publish("flood", steps)
    await field.together(times, lambda _: field.job(slug))


FAMILY.each("run", _started, FLOWS, leaves_work=True)
FAMILY.add(
    "twenty-thousand-waits",
    lambda field: _started(field, loop(1000, DAY, beside=1000), times=20),
    role="run",
    leaves_work=True,
)
STORMS = {"job-storm": lambda field, _: field.job("copy"), "held-runs": lambda field, _: field.job("hold")}
FAMILY.floods("run", 16, 300, STORMS, leaves_work=True)
WAITED = {"execute-storm": lambda field, _: field.execute("answer", {"message": "x"})}
FAMILY.floods("run", 100, 200, WAITED)
GIVEN_UP = {"steps-given-up": lambda field, _: field.execute("walk", {"stepIndex": 0}, way="step")}
FAMILY.floods("run", 8, 100, GIVEN_UP, leaves_work=True)

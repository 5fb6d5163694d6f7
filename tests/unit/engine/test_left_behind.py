"""A run that has ended leaves nothing in memory that only the garbage collector would find.

The collector of a server rarely looks through everything, and what a run was given may be megabytes.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from runglass.engine.journal.run_spec import RunSpec
from runglass.engine.journal.run_writer import RunWriter
from runglass.engine.payload import Payload
from runglass.engine.run.task import RunTask
from runglass.engine.run_memory import RunMemory
from runglass.engine.steps.interpreter import Interpreter
from runglass.store.sqlite.store import SqliteStore
from tests.unit.engine.conftest import open_harness, start
from tests.unit.engine.fake_models import FakeModels
from tests.waiting import until

OF_A_RUN = (RunTask, RunMemory, Payload, RunSpec, RunWriter, Interpreter)

CANCELLED = "cancelled while a model is silent"
FLOWS = {
    "code": "- {id: a, type: code, code: 'return {\"n\": len(text)}'}",
    "passed on": "- {id: a, type: passthrough}\n- {id: b, type: passthrough, input: {t: '{{ text }}'}}",
    "loop": "- id: l\n  type: loop\n  over: list(range(5))\n  max_concurrency: 2\n  steps:\n"
    "    - {id: a, type: passthrough, input: {t: '{{ initial.text }}'}}",
    "parallel": "- id: p\n  type: parallel\n  branches:\n    a: [{id: a, type: passthrough}]\n"
    "    b: [{id: b, type: passthrough}]",
    "condition": "- {id: c, type: condition, if: 'True', then: [{id: a, type: passthrough}]}",
    "echo": "- {id: a, type: llm, model: echo, prompt: '{{ text }}'}",
    "fails": "- {id: a, type: code, code: 'return 1 / 0'}",
    "fails in a loop": "- id: l\n  type: loop\n  over: list(range(5))\n  max_concurrency: 2\n  steps:\n"
    "    - {id: a, type: code, code: 'return 1 / 0'}",
    "fails and goes on": "- {id: a, type: code, code: 'return 1 / 0', on_error: continue}",
    "tried again": "- {id: a, type: code, code: 'return 1 / 0', retry: {max_attempts: 2}}",
    "no template": "- {id: a, type: passthrough, input: {t: '{{ missing.thing }}'}}",
    "no output": "- {id: a, type: llm, model: echo, prompt: a, output_schema: {type: object, not: {}}}",
    CANCELLED: "- {id: a, type: llm, model: echo, prompt: '{{ text }}'}",
    "limit of time": "- {id: a, type: wait, ms: 60000, timeout_ms: 1}",
}


@pytest.fixture(scope="module")
def heap_of_before() -> Iterator[None]:
    """Whatever other tests have left is looked through once, and not before and after each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_collector(heap_of_before: None) -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def nothing_is_left() -> bool:
    """So it is in the end: a thread lets go of what it has done when it has come round to wait."""
    return not any(isinstance(each, OF_A_RUN) for each in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("flow", FLOWS)
async def test_a_run_that_has_ended_leaves_nothing_to_the_collector(tmp_path: Path, flow: str) -> None:
    models = FakeModels() if flow == CANCELLED else None
    async with open_harness(SqliteStore(tmp_path / "db"), models=models) as house:
        for _ in range(2):
            started = await start(house, FLOWS[flow], {"text": "x" * 100_000})
            if models is not None:
                await models.asked.wait()
                models.asked.clear()
                house.engine.active.cancel(started.id, reason="asked for")
            await started.outcome()
            await house.engine.active.join(started.id)
            del started
        await until(nothing_is_left)

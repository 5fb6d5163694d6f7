"""What a run that fails keeps by `capture_failed`, and that others keep nothing by it."""

from contextlib import suppress
from pathlib import Path

import pytest

from runglass.errors import StoreError
from runglass.log.events import MOST_KEPT, ContentKept
from runglass.store.sqlite.store import SqliteStore
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import (
    Execute,
    Ran,
    end_in_next_life,
    next_life,
    open_harness,
    read,
    start,
)
from tests.unit.engine.test_crashes import dying_store, survived_by_no_process

FAILS_LATE = """
  - {id: first, type: code, code: 'return {"said": "mail jane@example.com", "long": "x" * 9000}'}
  - id: each
    type: loop
    over: "[1, 2, 3]"
    steps:
      - {id: double, type: code, input: {n: "{{ item }}"}, code: 'return {"twice": 2 * n}'}
  - id: way
    type: condition
    if: "True"
    then: [{id: taken, type: passthrough, input: {by: jane@example.com}}]
    else: [{id: not_taken, type: passthrough}]
  - {id: last, type: code, input: {}, code: 'raise ValueError("no")'}
"""


def kept_by(ran: Ran) -> ContentKept:
    (event,) = (event for event in ran.events if isinstance(event, ContentKept))
    return event


async def test_a_run_that_fails_keeps_the_outputs_of_its_finished_steps(execute: Execute) -> None:
    ran = await execute(FAILS_LATE, capture="metadata_only", capture_failed="full")
    assert ran.types()[-3:] == ["content_kept", "run_input", "flow_failed"]
    assert [ran.step("double", (index,)).output_context for index in range(3)] == [
        {"twice": 2},
        {"twice": 4},
        {"twice": 6},
    ]
    first, taken = ran.step("first"), ran.step("taken")
    assert first.truncated
    assert (first.output_context or {})["said"] == "mail jane@example.com"
    assert (first.output_size_bytes, first.input_context, taken.truncated) == (9042, None, False)
    assert taken.output_context == {"by": "jane@example.com"}
    assert [(kept.step_id, kept.loop_path) for kept in kept_by(ran).outputs] == [
        ("first", None),
        ("double", (0,)),
        ("double", (1,)),
        ("double", (2,)),
        ("taken", None),
    ]
    assert kept_by(ran).left_out == 0


async def test_a_step_whose_failure_the_run_survives_has_no_output_to_keep(execute: Execute) -> None:
    steps = """
  - {id: lost, type: code, on_error: continue, code: 'raise ValueError("no")'}
  - {id: last, type: code, code: 'raise ValueError("no")'}
"""
    ran = await execute(steps, capture="metadata_only", capture_failed="full")
    assert ran.types()[-1] == "flow_failed"
    assert "content_kept" not in ran.types()


async def test_of_many_steps_the_newest_keep_their_outputs(execute: Execute) -> None:
    steps = f"""
  - id: each
    type: loop
    over: "list(range({MOST_KEPT + 20}))"
    steps: [{{id: pass, type: passthrough}}]
  - {{id: last, type: code, input: {{}}, code: 'raise ValueError("no")'}}
"""
    ran = await execute(steps, capture="metadata_only", capture_failed="full")
    # The step that failed is one of them.
    assert (len(kept_by(ran).outputs), kept_by(ran).left_out) == (MOST_KEPT - 1, 21)
    assert ran.step("pass", (20,)).output_context is None
    assert ran.step("pass", (21,)).output_context == {"item": 21, "index": 21}


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("lives", range(1, 9))
async def test_a_failure_that_is_recorded_by_a_later_process_has_the_outputs(
    tmp_path: Path, lives: int, *, commits: bool
) -> None:
    async with next_life(dying_store(tmp_path / "db", lives, commits=commits)[0]) as house:
        started = await start(house, FAILS_LATE, {"n": 1}, capture="metadata_only", capture_failed="full")
        with suppress(StoreError):
            await started.outcome()
        left = await read(house, started.id)
    ran = await end_in_next_life(tmp_path / "db", started.id)
    assert ran.events[: len(left.events)] == left.events, "nothing acknowledged is lost"
    assert ran.types()[-3:] == ["content_kept", "run_input", "flow_failed"]
    assert ran.types().count("content_kept") == 1
    assert ran.trace.flow_run.input == {"inputs": {"n": 1}}
    assert ran.step("double", (1,)).output_context == {"twice": 4}


async def test_a_run_that_no_process_survives_keeps_its_outputs(tmp_path: Path) -> None:
    flow = "- {id: one, type: passthrough}\n- {id: two, type: wait, ms: 1000}"
    ran = await survived_by_no_process(
        tmp_path / "db", 3, flow, capture="metadata_only", capture_failed="full"
    )
    assert ran.types()[-3:] == ["content_kept", "run_input", "flow_failed"]
    assert ran.step("one").output_context == {"n": 1}


@pytest.mark.parametrize("data", [b"\xff\x00", b"{", b"[1", b"\x00" * 100_000])
async def test_where_an_output_cannot_be_read_the_run_fails_by_its_own_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    store = SqliteStore(tmp_path / "db")
    FaultyStore(store).answer("checkpoint", data)
    async with open_harness(store) as house:
        started = await start(house, FAILS_LATE, capture="metadata_only", capture_failed="full")
        outcome = await started.outcome()
        ran = await read(house, started.id, outcome)
    assert (outcome.status, outcome.step_id) == ("failed", "last")
    assert (outcome.error or {})["code"] == "CODE_ERROR"
    assert "content_kept" not in ran.types()
    assert f"run {started.id} keeps no outputs of its steps" in caplog.text

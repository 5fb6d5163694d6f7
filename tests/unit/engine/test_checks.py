"""Checks that are not proved quick are made in a process within limits, with the same messages."""

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from runglass.config.settings import Settings
from runglass.engine.workers import checks as module
from runglass.engine.workers.checks import Checks
from runglass.errors import APIError, StepFailure
from runglass.flows.flow import Flow
from runglass.flows.parser import parse_flow
from runglass.flows.schemas.schema import Unproved
from tests.flows import doubling

RECURSIVE = {"type": "object", "properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}}}
"""Not proved to be quick, and so judged in a process."""


def flow(**inputs: Any) -> Flow:
    parsed = parse_flow("slug: f\nsteps: [{id: a, type: llm, model: echo, prompt: x}]\n")
    return Flow(slug="f", inputs=inputs, steps=parsed.steps)


async def test_the_usual_request_and_answer_start_no_process() -> None:
    async with Checks() as checks:
        own = flow(type="object", properties={"n": {"type": "integer", "default": 1}})
        overrides = {"a": {"prompt": "y", "output_schema": {"type": "object"}}}
        changed, inputs = await checks.request(own, overrides, {}, size_bytes=100, project_id=1)
        assert inputs == {"n": 1}
        assert changed.steps[0].prompt == "y"  # type: ignore[union-attr]
        assert await checks.problems({"n": "x"}, {"properties": {"n": {"type": "integer"}}}, size_bytes=9)
        many = {str(number): 1 for number in range(9)}
        told = await checks.problems(many, {"additionalProperties": {"type": "null"}}, size_bytes=60)
        assert len(told) == 5, "the first five are told"
        assert await checks.smallest({"type": "object"}) == {}
        assert checks.forker.pid is None


@pytest.mark.parametrize("inputs", [{"n": 1}, {"n": "x"}, {"next": {"n": "x"}}, {}])
@pytest.mark.parametrize("overrides", [{}, {"a": {"prompt": "y"}}, {"b": {}}, {"a": {"model": "no"}}])
async def test_a_process_gives_the_same_answers_as_the_event_loop(
    overrides: dict[str, Any], inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def told() -> Any:
        own = flow(type="object", properties={"n": {"type": "integer"}, "next": {"type": "object"}})
        if inputs.get("next"):
            own = flow(type="object", properties={"next": {"properties": {"n": {"type": "integer"}}}})
        try:
            return await checks.request(own, overrides, inputs, size_bytes=100, project_id=1)
        except APIError as error:
            return error.code, error.message, error.step_id, error.details

    async with Checks() as checks:
        here = await told()
        monkeypatch.setattr(module, "check_request", Mock(side_effect=Unproved))
        assert await told() == here


async def test_a_check_that_takes_too_long_fails_its_step_and_the_next_one_is_served() -> None:
    async with Checks(Settings(check_time_limit_ms=300)) as checks:
        with pytest.raises(
            StepFailure, match=r"more than 300 ms .*\(setting check_time_limit_ms\)"
        ) as failed:
            await checks.smallest(doubling(40))
        assert (failed.value.code, failed.value.may_retry) == ("SCHEMA_LIMIT", False)
        assert await checks.problems({"next": {"n": 1}}, RECURSIVE, size_bytes=20) == []
        assert await checks.problems({"next": {"n": "x"}}, RECURSIVE, size_bytes=20) == [
            "`next.n`: expected an integer, found 'x'"
        ]


async def test_a_check_that_takes_too_much_memory_is_refused() -> None:
    async with Checks(Settings(check_memory_limit_bytes=128 << 20, check_time_limit_ms=60_000)) as checks:
        rows = {"rows": [[n] for n in range(600_000)]}
        with pytest.raises(APIError, match=r"setting check_memory_limit_bytes"):
            await checks.request(flow(**RECURSIVE), {}, rows, size_bytes=4_000_000, project_id=1)


async def test_a_project_holds_one_process_at_a_time() -> None:
    async with Checks(Settings(check_time_limit_ms=60_000)) as checks:
        own = flow(**doubling(40))
        given = doubling(40)["default"]
        slow = [
            asyncio.create_task(checks.request(own, {}, given, size_bytes=9, project_id=1)) for _ in range(3)
        ]
        await asyncio.sleep(0)
        await checks.request(flow(**RECURSIVE), {}, {}, size_bytes=2, project_id=2)
        assert not slow[1].done()
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)

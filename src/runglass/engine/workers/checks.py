"""Checks what callers send: here where that is proved to be quick, else in a process that can be killed.

The usual request, flow and answer of a model cost nothing more for it. Knows what to ask for and not how it
is found: that is in `checking`.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec

from runglass.config.settings import USUAL, Settings
from runglass.engine.workers.check_worker import (
    CheckedRequest,
    CheckFlowFile,
    CheckRequest,
    FitSchema,
    MakeSmallest,
    Task,
    check_request,
)
from runglass.engine.workers.pool import LimitHit, WorkerPool
from runglass.engine.workers.schema_example import schema_problems, smallest_object
from runglass.errors import FlowFileError, Problem, StepFailure, api_error
from runglass.flows.flow import Flow
from runglass.flows.parser import CheckedFlow
from runglass.flows.schemas.schema import Unproved
from runglass.limits.offload import offload, offload_in_turn

T = TypeVar("T")


class Checks(WorkerPool):
    """A pool of processes for checks, within the limits of `settings`. A project's go on one at a time."""

    def __init__(self, settings: Settings = USUAL) -> None:
        super().__init__(
            "runglass.engine.workers.check_worker:answered",
            what="checks",
            memory_limit_bytes=settings.check_memory_limit_bytes,
            memory_setting="check_memory_limit_bytes",
        )
        self._settings = settings

    async def request(
        self,
        flow: Flow,
        overrides: Mapping[str, Any],
        inputs: dict[str, Any] | None,
        *,
        size_bytes: int,
        project_id: int,
    ) -> tuple[Flow, dict[str, Any] | None]:
        """The flow with the overrides in it, and the inputs as they fit it. Raises APIError.

        `size_bytes` is about the size of the request. Without inputs only the overrides are looked at.
        """
        limit = self._settings.flow_limit_bytes
        if overrides and size_bytes > limit:
            encoded = await offload_in_turn(partial(msgspec.json.encode, overrides))
            if len(encoded) > limit:
                message = (
                    f"`blockOverrides` has {len(encoded):,} bytes as JSON; at most {limit:,} are taken, as of"
                    " a flow file (setting flow_limit_bytes)"
                )
                raise api_error("INVALID_REQUEST", message)
        check = partial(
            check_request,
            flow,
            overrides,
            inputs,
            schema_limit_bytes=self._settings.schema_limit_bytes,
            quick_bytes=size_bytes,
        )
        try:
            return await offload(check, size_bytes=size_bytes)
        except Unproved:
            task = CheckRequest(flow, dict(overrides), inputs, self._settings.schema_limit_bytes)
        what = "the overrides" if inputs is None else "the request"
        try:
            checked = await self._asked(task, CheckedRequest, project_id=project_id, what=f"to check {what}")
        except LimitHit as error:
            raise api_error("INVALID_REQUEST", str(error)) from error
        return checked.flow or flow, checked.inputs

    async def flow_file(self, text: bytes, *, own_providers: Iterable[str], project_id: int) -> CheckedFlow:
        """The flow in a file, and the warnings about it. Raises FlowFileError."""
        limit = self._settings.flow_limit_bytes
        task = CheckFlowFile(text, list(own_providers), self._settings.schema_limit_bytes, limit)
        if len(text) > 4 * limit:
            told = f"the file is larger than {limit:,} characters (setting flow_limit_bytes)"
            raise FlowFileError([Problem(told)])
        try:
            return await self._asked(
                task,
                CheckedFlow,
                project_id=project_id,
                what="to check the file",
                limit_ms=self._settings.flow_check_time_limit_ms,
                setting="flow_check_time_limit_ms",
            )
        except LimitHit as error:
            raise FlowFileError([Problem(str(error))]) from error

    async def problems(self, value: Any, schema: dict[str, Any], *, size_bytes: int) -> list[str]:
        """The mistakes in the value of a step, in at most five sentences.

        `size_bytes` is about the size of the value as JSON. Raises StepFailure.
        """
        try:
            return schema_problems(value, schema, quick_bytes=size_bytes)
        except Unproved:
            return await self._of_step(FitSchema(value, schema), list[str], what="to check the answer")

    async def smallest(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A small object that the schema accepts. Raises StepFailure."""
        try:
            return smallest_object(schema, quick=True)
        except Unproved:
            return await self._of_step(MakeSmallest(schema), dict[str, Any], what="to make up an object")

    async def _of_step(self, task: Task, kind: type[T], *, what: str) -> T:
        try:
            return await self._asked(task, kind, what=what)
        except LimitHit as limit:
            raise StepFailure("SCHEMA_LIMIT", str(limit), may_retry=False) from limit

    async def _asked(
        self,
        task: Task,
        kind: type[T],
        *,
        what: str,
        project_id: int | None = None,
        limit_ms: int | None = None,
        setting: str = "check_time_limit_ms",
    ) -> T:
        """The answer of a process. Raises LimitHit, and the errors of the task."""
        return await self.call(
            partial(msgspec.json.encode, task),
            partial(msgspec.json.decode, type=kind),
            what=what,
            limit_ms=limit_ms or self._settings.check_time_limit_ms,
            setting=setting,
            project_id=project_id,
        )

"""A run of a session as what a replay needs of it: the input that it is found by, and its answers. No I/O."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from runglass.client.core.step_session import ENDS
from runglass.client.core.tools import content_of
from runglass.log.events import (
    FlowCompleted,
    FlowFailed,
    OverridesApplied,
    RunInput,
    RunStarted,
    StepCompleted,
    StepPausedForToolCalls,
    StreamEvent,
    decode_event,
)
from runglass.redact import MARK
from runglass.run_files.header import RunHeader

METHODS = {"api": "execute", "job": "jobs", "step": "step"}
"""The call that starts a run, by the run's trigger."""


class SessionRun:
    """A run of the session, as the calls that it answers: one that starts it, and one after each pause.

    `input` is what it was started with; where no call can be compared with that, `why_not` says why.
    """

    def __init__(self, file: bytes) -> None:
        head, *lines = file.splitlines()
        header = msgspec.json.decode(head, type=RunHeader)
        self.execution_id = header.run_id
        self.flow = header.flow.slug
        self.method = METHODS[header.trigger_type]
        self.version = header.version
        self.capture = header.capture
        self.answers: list[list[StreamEvent]] = []
        self.used = 0
        events = [decode_event(line) for line in lines]
        for event, before in zip(events, [None, *events], strict=False):
            if before is None or isinstance(before, ENDS):
                self.answers.append([])
            self.answers[-1].append(event)
        self.facts: dict[str, Any] = {
            "execution_id": header.run_id,
            "session_id": header.session_id,
            "flow_id": header.flow.id,
            "block_count": next((e.step_count for e in events if isinstance(e, RunStarted)), 0),
        }
        given = next((e for e in events if isinstance(e, RunInput)), RunInput(execution_id=""))
        overrides = next(
            (e for answer in self.answers[:1] for e in answer if isinstance(e, OverridesApplied)),
            OverridesApplied(execution_id="", overridden=[]),
        )
        blocks, inputs = overrides.block_overrides, overrides.input_overrides
        self.input: dict[str, Any] = {
            "inputs": given.inputs,
            # The images of a turn are beside it in the log.
            "messages": [
                {**_turn(turn), "images": _urls(turn.get("attachments"))} for turn in given.messages or ()
            ],
            "images": _urls(given.attachments),
            "blockOverrides": _without_headers(blocks),
            "inputOverrides": inputs or {},
        }
        has_input = given.inputs is not None
        self.why_not: str | None = None
        if not has_input or (overrides.overridden and blocks is inputs is None):
            self.why_not = f"its input was not kept, or is removed (capture mode {self.capture})"
        elif given.truncated:
            self.why_not = "its input was too large to be kept whole"
        elif self.capture == "redacted" and _has_mark(self.input):
            self.why_not = "parts of its input are redacted"
        self._has_outputs = has_input and self.capture in ("full", "redacted")

    def __repr__(self) -> str:
        return f"SessionRun({self.execution_id!r}, flow={self.flow!r}, method={self.method!r})"

    def unkept(self, events: Sequence[StreamEvent], *, may_be_redacted: bool) -> str | None:
        """What the caller had in these events then and cannot have now; None where it is all there."""
        for event in events:
            match event:
                case FlowFailed(error=error):
                    has_content = "message" in (error or {})
                case FlowCompleted() | StepCompleted() | StepPausedForToolCalls():
                    has_content = self._has_outputs
                case _:
                    continue
            if not has_content:
                return (
                    f"its outputs were not kept, or are removed (capture mode {self.capture}): record with "
                    f"`trace=True`, or capture mode full"
                )
            if getattr(event, "truncated", False):
                return "its outputs were too large to be kept whole"
            if self.capture == "redacted" and not may_be_redacted and _has_mark(event):
                return "parts of its outputs are redacted"
        return None


def asked_input(body: Mapping[str, Any]) -> dict[str, Any]:
    """The input in the body of a call, in the form in which a `SessionRun` has it."""
    turns = [_turn(turn) for turn in body.get("messages") or ()]
    current = turns.pop() if turns else _turn({"content": body.get("message")})
    message = {} if current["content"] is None else {"message": current["content"]}
    return {
        "inputs": body.get("parameters", {}) | message,
        "messages": turns,
        "images": _urls(body.get("attachments")) + current["images"],
        "blockOverrides": _without_headers(body.get("blockOverrides")),
        "inputOverrides": body.get("inputOverrides") or {},
    }


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn of a conversation, which may be said in several ways; other members do not reach the run."""
    content = turn.get("content")
    parts = content if isinstance(content, list) else []
    images = [part["image_url"] for part in parts if part.get("type") == "image_url"]
    calls = turn.get("toolCalls") or turn.get("tool_calls") or ()
    return {
        "role": turn.get("role"),
        "content": "".join(part.get("text", "") for part in parts) if parts else content,
        "images": [each["url"] if isinstance(each, dict) else each for each in images],
        "toolCalls": [{"type": "function", **call} for call in calls],
        "toolCallId": turn.get("toolCallId") or turn.get("tool_call_id"),
        "name": turn.get("name"),
    }


def _urls(attachments: Sequence[Mapping[str, Any]] | None) -> list[str]:
    return [each["url"] for each in attachments or ()]


def _without_headers(overrides: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """Overrides of steps' fields without extra headers, whose values no capture mode keeps."""
    return {
        step: {
            field: {name: each for name, each in value.items() if name != "extra_headers"}
            if field == "settings" and isinstance(value, Mapping)
            else value
            for field, value in fields.items()
            if field != "settings.extra_headers"
        }
        for step, fields in (overrides or {}).items()
    }


def results_of(messages: Sequence[Mapping[str, Any]]) -> dict[Any, str]:
    """Tool results by the id of their call."""
    return {
        each.get("toolCallId") or each.get("tool_call_id"): content_of(
            each.get("content", each.get("output"))
        )
        for each in messages
    }


def _has_mark(value: Any) -> bool:
    return MARK.encode() in msgspec.json.encode(value)

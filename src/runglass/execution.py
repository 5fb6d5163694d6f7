"""What a caller sends to run a flow and what comes back: the bodies of the execution endpoints.

Plain values shared by client and server. Responses are camelCase; request bodies are read in both spellings
(`accept_both_spellings`).
"""

from typing import Any, Literal

import msgspec

from runglass.trace import RunSummary

Version = int | Literal["production", "draft"]
"""A published version's number (0 is the draft) or one of the two names."""

CaptureMode = Literal["off", "metadata_only", "redacted", "full"]


class ExecuteRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Body of `POST …/execute`. `trace=True` asks for full snapshots of this one run."""

    message: str | None = None
    parameters: dict[str, Any] = {}
    block_overrides: dict[str, dict[str, Any]] = {}
    trace: bool = False


class CompletedResult(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="status", tag="completed"
):
    """The run ended well: `result` is the last step's output."""

    result: dict[str, Any] | None
    flow_id: str
    block_count: int
    execution_id: str


class RunPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of runs, newest first. `next_cursor` is None on the last page."""

    runs: list[RunSummary]
    next_cursor: str | None = None


def accept_both_spellings(body: Any, shape: type[msgspec.Struct]) -> Any:
    """`body` with the top-level members of `shape` in camelCase, whichever of the two spellings came in.

    Members that `shape` does not know, and everything below the top level, stay as they are. A member given
    in both spellings is left alone, so that decoding cannot silently prefer one.
    """
    if not isinstance(body, dict):
        return body
    wire = dict(zip(shape.__struct_fields__, shape.__struct_encode_fields__, strict=True))
    return {
        wire[name] if name in wire and wire[name] not in body else name: value for name, value in body.items()
    }

"""What a file with a run says of it before its events: whose run it is, and the flow that it is of.

The same header begins both formats that can be read back. All else about a run follows from its events.
"""

import re
from collections.abc import Sequence

import msgspec

from runglass.errors import RunFileError
from runglass.log.trace import written
from runglass.wire.run_api import CaptureMode, ExportFormat

FORMAT = "runglass-run"
FORMAT_VERSION = 1

MEDIA_TYPES: dict[ExportFormat, str] = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "otlp": "application/json",
    "perfetto": "application/json",
}
_SUFFIXES: dict[ExportFormat, str] = {
    "json": "json",
    "jsonl": "jsonl",
    "otlp": "otlp.json",
    "perfetto": "perfetto.json",
}
LARGEST_VERSION = 2**31 - 1
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_TRIGGER = re.compile(r"[a-z_]{1,32}")
_PLAIN = re.compile(r"[a-z0-9-]{1,128}")
"""Slugs that can stand in a header and in the name of a file."""


class FlowOfRun(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The flow of a run; `source` is the version that ran, as JSON, of a draft as it was at the export."""

    id: str
    slug: str
    source: msgspec.Raw = msgspec.Raw(b"null")


class RunHeader(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A run without its events. `version` 0 is the draft."""

    format: str = written(FORMAT)
    format_version: int = written(FORMAT_VERSION)
    run_id: str
    version: int
    capture: CaptureMode
    trigger_type: str
    session_id: str | None = None
    flow: FlowOfRun


def check_header(header: RunHeader) -> None:
    """Raises RunFileError for a run that there cannot be."""
    ids = {"runId": header.run_id, "flow.id": header.flow.id, "sessionId": header.session_id}
    for name, value in ids.items():
        if value is not None and not _UUID.fullmatch(value):
            raise RunFileError(f"`{name}` in the header is not a UUID in lower case: {value!r:.60}")
    if not _PLAIN.fullmatch(header.flow.slug):
        raise RunFileError(f"`flow.slug` in the header is not the slug of a flow: {header.flow.slug!r:.60}")
    if not 0 <= header.version <= LARGEST_VERSION:
        raise RunFileError(f"`version` in the header is not between 0 and {LARGEST_VERSION:,}")
    if not _TRIGGER.fullmatch(header.trigger_type):
        raise RunFileError(f"`triggerType` in the header is not one: {header.trigger_type!r:.60}")


def file_name(format: ExportFormat, run_id: str, slug: str | None = None) -> str:
    """The name of the file that a run is written to."""
    beginning = slug if slug is not None and _PLAIN.fullmatch(slug) else "run"
    return f"{beginning}-{run_id}.{_SUFFIXES[format]}"


def lines(events: Sequence[bytes]) -> bytes:
    """Events as lines, each ended by a line break."""
    return b"".join([b"%b\n" % event for event in events])


def members(rows: Sequence[bytes], *, first: bool) -> bytes:
    """Rows as members of a JSON array, each on its own line; `first` where none is before them."""
    return (b"\n" if first else b",\n") + b",\n".join(rows)

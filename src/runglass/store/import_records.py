"""What a store takes in of a run from another server."""

from typing import NamedTuple

import msgspec

from runglass.store.records import NO_RETENTION, Retention, RunNumbers
from runglass.wire.run_api import CaptureMode


class ImportedFlow(NamedTuple):
    """The flow of a run that is imported; `source` is the version that ran, as JSON."""

    id: str
    slug: str
    source: bytes
    name: str | None = None
    capture: CaptureMode | None = None
    retention: Retention = NO_RETENTION


class ImportedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose events and steps have been imported as number `no`, and what its row has beside them.

    `flow` is made where there is none with this id, and so is its version.
    """

    no: int
    id: str
    project_id: int
    flow: ImportedFlow
    version: int
    status: str
    trigger_type: str
    capture: CaptureMode
    session_id: str | None
    head: int
    summary: bytes
    ended_at: str
    numbers: RunNumbers
    log_bytes: int

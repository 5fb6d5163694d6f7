"""Runs as files, as plain data: what exporting and importing ask the server."""

from types import NoneType
from typing import get_args

from runglass.client.core.requests import RequestSpec
from runglass.log.trace import RunSummary
from runglass.wire.run_api import ExportFormat


def export(run: str, format: ExportFormat) -> RequestSpec[None]:
    """The run at path `run` as a file. Raises ValueError for a format that there is none of."""
    if format not in get_args(ExportFormat):
        raise ValueError(f"format must be one of {', '.join(get_args(ExportFormat))}, not {format!r}")
    return RequestSpec(method="GET", path=f"{run}/export", answer=NoneType, query=(("format", format),))


def import_run() -> RequestSpec[RunSummary]:
    """Make the run of a file, which is the body."""
    return RequestSpec(method="POST", path="/flow-runs/import", answer=RunSummary)

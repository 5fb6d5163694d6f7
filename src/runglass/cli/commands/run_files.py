"""`runglass runs export` and `runs import`: a run as a file, for other programs and other servers."""

import sys
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import IO, get_args

import click

from runglass.cli import options
from runglass.cli.backends.connection import connect
from runglass.cli.backends.new_file import new_file
from runglass.cli.backends.run_lookup import named_run
from runglass.cli.exit_codes import UsageError
from runglass.cli.terminal.output import note, stdout, write_bytes, write_line
from runglass.run_files.header import file_name
from runglass.wire.run_api import ExportFormat

STANDARD = Path("-")
"""Names stdout, or stdin, in place of a file."""


@click.command()
@options.run_id
@click.option(
    "--format",
    type=click.Choice(get_args(ExportFormat)),
    default="json",
    help="json or jsonl, which can be imported; otlp for OpenTelemetry; perfetto for its viewer.",
)
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    metavar="FILE",
    help="A new file, which only you may read, or - for stdout; by default run-ID.json or the like.",
)
@options.server
def export(
    run_id: str, format: ExportFormat, output: Path | None, base_url: str | None, api_key: str | None
) -> None:
    """Write a run to a file, to be imported on another server, or for other programs."""
    with connect(base_url, api_key) as client:
        run = named_run(client, run_id)
        with closing(run.export(format)) as parts:
            if output == STANDARD:
                for part in parts:
                    write_bytes(part)
                return
            file = output or Path(file_name(format, run.execution_id))
            size = 0
            with new_file(file) as written:
                for part in parts:
                    size += written.write(part)
    note(f"wrote {size:,} bytes of run {run.execution_id} to {file}")


@click.command("import")
@click.argument(
    "file", type=options.FILE, metavar="FILE", help="A file of runs export, json or jsonl; - for stdin."
)
@options.server
def import_run(file: Path, base_url: str | None, api_key: str | None) -> None:
    """Make the run of a file, with its id, events and trace, in the key's project; all of it or nothing."""
    with connect(base_url, api_key) as client, _opened(file) as opened:
        run = client.import_run(opened)
    write_line(stdout(), f"imported run {run.id} of flow {run.flow_slug or run.flow_id}: {run.status}")


def _opened(file: Path) -> AbstractContextManager[IO[bytes]]:
    if file == STANDARD:
        return nullcontext(sys.stdin.buffer)
    try:
        return file.open("rb")
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror or error}") from error

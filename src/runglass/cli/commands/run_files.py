"""`runglass runs export`: a run as a file, for other programs and other servers."""

from contextlib import closing
from pathlib import Path
from typing import get_args

import click

from runglass.cli import options
from runglass.cli.backends.connection import connect
from runglass.cli.backends.new_file import new_file
from runglass.cli.backends.run_lookup import named_run
from runglass.cli.terminal.output import note, write_bytes
from runglass.run_api import ExportFormat
from runglass.run_files.header import file_name

STDOUT = Path("-")


@click.command()
@options.run_id
@click.option(
    "--format",
    type=click.Choice(get_args(ExportFormat)),
    default="json",
    help="json: one document with events and trace; jsonl: one event a line.",
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
    """Write a run to a file, with each event as it is stored."""
    with connect(base_url, api_key) as client:
        run = named_run(client, run_id)
        with closing(run.export(format)) as parts:
            if output == STDOUT:
                for part in parts:
                    write_bytes(part)
                return
            file = output or Path(file_name(format, run.execution_id))
            size = 0
            with new_file(file) as written:
                for part in parts:
                    size += written.write(part)
    note(f"wrote {size:,} bytes of run {run.execution_id} to {file}")

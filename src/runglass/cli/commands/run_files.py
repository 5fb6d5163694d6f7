"""Runs as files: `runglass runs export`, `runs import` and `data export-raw`.

A file that is written is new, and whole or not there at all.
"""

import base64
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, get_args

import click
import msgspec

from runglass.cli import options
from runglass.cli.backends import local_store
from runglass.cli.backends.local_store import DataFolder
from runglass.cli.backends.server import Server, named_run, names_run
from runglass.cli.commands.delete_runs import for_each, found_by, tell_what_would_be
from runglass.cli.exit_codes import Exit, NotFound, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import note, stdout, write_bytes, write_line
from runglass.client import Run
from runglass.run_files.header import file_name
from runglass.store.records import RawRow
from runglass.store.run_logs import RunLog
from runglass.wire.run_api import ExportFormat

HEAD_BYTES = 10_000
"""Of a run as spans: what comes before the first of them, and its id."""


@click.command()
@options.run_or_query
@click.option(
    "--format",
    type=click.Choice(get_args(ExportFormat)),
    default="json",
    help="json or jsonl to import; otlp for OpenTelemetry; perfetto for its viewer.",
)
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    metavar="FILE",
    help="A new file, readable only by you, or - for stdout; by default run-ID.json or the like. Of a query,"
    " the folder for such files.",
)
@click.option("--yes", is_flag=True, help="Write the runs of a query; without it, only say how many.")
@options.server
def export(runs: str, format: ExportFormat, output: Path | None, yes: bool, server: Server) -> None:
    """Write a run, or with --yes each run that a query matches, to a file for another server or program."""
    with server.connect() as client:
        if names_run(runs):
            run = named_run(client, runs)
            if output == Path("-"):
                _write(run, format, write_bytes)
                return
            file = output or Path(file_name(format, run.execution_id))
            note(f"wrote {_written(run, format, file):,} bytes of run {run.execution_id} to {file}")
            return
        folder = output or Path()
        if not folder.is_dir():
            raise UsageError(f"{str(folder)!r} is no folder; of a query each run becomes a file in one")
        found = [run.id for run in found_by(client, runs)]
        if not yes:
            tell_what_would_be(len(found), "written", f" to {folder}")
            return
        done, gone = for_each(
            found,
            lambda run_id: _written(client.run(run_id), format, folder / file_name(format, run_id)),
            "wrote",
        )
    write_line(stdout(), f"wrote {formatting.counted(len(done), 'run')} to {folder}")
    if gone:
        note(f"{formatting.counted(len(gone), 'run')} cannot be exported, or not any more: {', '.join(gone)}")


def _written(run: Run, format: ExportFormat, file: Path) -> int:
    """The size of the new file that the run was written to. Raises UsageError for one that is there."""
    with new_file(file) as written:
        return _write(run, format, written.write)


def _write(run: Run, format: ExportFormat, write: Callable[[bytes], object]) -> int:
    """Writes the run, and returns the size of that. Says so where it has no span of OpenTelemetry yet."""
    size, head = 0, b""
    with closing(run.export(format)) as parts:
        for part in parts:
            write(part)
            size += len(part)
            head = (head + part)[:HEAD_BYTES]
    if format == "otlp" and b'"spanId"' not in head:
        note(f"run {run.execution_id} has no step yet that has ended: there is no span in what was written")
    return size


@click.command("import")
@click.argument(
    "file", type=click.File("rb"), metavar="FILE", help="A json or jsonl file of `runs export`; - for stdin."
)
@options.server
def import_run(file: IO[bytes], server: Server) -> None:
    """Import a run from a file into the key's project, with its id, events and trace."""
    with server.connect() as client:
        run = client.import_run(file)
    write_line(stdout(), f"imported run {run.id} of flow {run.flow_slug or run.flow_id}: {run.status}")


@contextmanager
def new_file(file: Path) -> Iterator[IO[bytes]]:
    """A new file, which only its owner may read; it is gone again where the block fails. Raises UsageError.

    Half of a run would pass for the whole.
    """
    with cleans_up_on_sigterm():
        try:
            written = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600), "wb")
        except OSError as error:
            raise UsageError(
                f"{str(file)!r} cannot be written as a new file: {error.strerror or error}"
            ) from error
        try:
            with written:
                yield written
        except BaseException as error:
            file.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise UsageError(f"{str(file)!r} cannot be written: {error.strerror or error}") from error
            raise


@contextmanager
def cleans_up_on_sigterm() -> Iterator[None]:
    """A block that SIGTERM leaves with an exception, so that it removes what it has written so far."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(Exit.TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command()
@click.argument("run_id", metavar="RUN_ID", help="The run's complete id.")
@click.argument("file", type=options.FILE, metavar="FILE", help="A new file, readable only by you.")
@options.data_folder
def export_raw(run_id: str, file: Path, folder: DataFolder) -> None:
    """Write every row of a run to a file, one JSON per line, even if the run is unreadable.

    Bytes are `{"text": …}` if they are UTF-8, else `{"base64": …}`.
    """
    settings, whole_id = folder.settings(), run_id.lower()

    async def export_rows(store: RunLog) -> int:
        if await store.run(whole_id) is None:
            raise NotFound(f"there is no run {whole_id!r} in {settings.store_name!r}")
        count = 0
        with new_file(file) as written:

            def write(table: str, row: RawRow) -> None:
                nonlocal count
                plain = {
                    name: _plain(value) if isinstance(value, bytes) else value for name, value in row.items()
                }
                written.write(msgspec.json.encode({"table": table, "row": plain}) + b"\n")
                count += 1

            await store.raw_rows(whole_id, write)
        return count

    rows = local_store.in_store(settings, export_rows)
    note(f"wrote {rows:,} rows of run {run_id} to {file}")


def _plain(value: bytes) -> dict[str, str]:
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}

"""`runglass data`: the database of a data folder, whether or not its server runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runglass.cli import options
from runglass.cli.backends import local_store
from runglass.cli.command_group import CommandGroup
from runglass.cli.commands.export_raw import export_raw
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import note, stdout, write_json, write_line
from runglass.cli.terminal.table import Cell, Column, Row, print_table
from runglass.errors import StoreError, UpgradeRequired

if TYPE_CHECKING:
    from runglass.store.sqlite.database_file import ProjectUsage

COLUMNS = (
    Column("project"),
    Column("runs", right=True),
    Column("events", right=True, spare=2),
    Column("event data", right=True),
    Column("steps", right=True, spare=3),
    Column("step data", right=True),
    Column("outcomes", right=True, spare=1),
    Column("open runs", right=True, spare=1),
)


@click.group("data", cls=CommandGroup)
def group() -> None:
    """The database: measure, copy, check it, make it smaller."""


@group.command()
@options.data_folder
@options.as_json
def usage(data: Path | None, store: str | None, as_json: bool) -> None:
    """Show the size of each project, of free space, and of the write-ahead log. A server may run."""
    # Imported here, as in the commands below: the module brings SQLite along, for which no other is to wait.
    from runglass.store.sqlite.database_file import usage as usage_of

    settings = local_store.data_settings(data, store)
    local_store.require_database(settings)
    found = usage_of(settings.database)
    if as_json:
        write_json(found)
        return
    print_table(COLUMNS, [_row(project) for project in found.projects])
    console = stdout()
    file, free, log = map(formatting.size, (found.file_bytes, found.free_bytes, found.log_bytes))
    write_line(console)
    write_line(console, f"file {file}, of which {free} free; log {log}")
    if found.purged_runs:
        write_line(
            console, f"{formatting.counted(found.purged_runs, 'deleted run')} still to be cleared away"
        )
    if not found.gives_back:
        note("the file was made by an earlier version: free space goes back with `runglass data vacuum`")


@group.command()
@options.data_folder
def vacuum(data: Path | None, store: str | None) -> None:
    """Write the database anew without free space. No server may run; takes as much disk space again."""
    from runglass.store.data_folder import exclusive
    from runglass.store.sqlite.database_file import rebuild

    settings = local_store.data_settings(data, store)
    local_store.require_database(settings)
    with exclusive(settings.database):
        before = settings.database.stat().st_size
        rebuild(settings.database)
        after = settings.database.stat().st_size
    write_line(stdout(), f"{formatting.size(before)} before, {formatting.size(after)} now")


@group.command()
@click.argument("file", type=options.FILE, metavar="FILE", help="The copy; it must not exist yet.")
@options.data_folder
def backup(file: Path, data: Path | None, store: str | None) -> None:
    """Copy the database as of one moment, while its server goes on.

    To restore it, start the server with --store sqlite:///FILE, or put it in the place of the database.
    """
    from runglass.store.sqlite.database_file import back_up

    settings = local_store.data_settings(data, store)
    local_store.require_database(settings)
    try:
        back_up(settings.database, file)
    except FileExistsError as error:
        raise UsageError(f"{str(file)!r} exists and is left as it is: name another file") from error
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be written: {error.strerror}") from error
    write_line(stdout(), f"{file}  {formatting.size(file.stat().st_size)}")


@group.command()
@click.option(
    "--all", "every_run", is_flag=True, help="Fold the log of every run; by default of some, spread over all."
)
@options.data_folder
@options.as_json
def check(every_run: bool, data: Path | None, store: str | None, as_json: bool) -> None:
    """Check that the file is sound, no row strays, no log has gaps, and traces are the sum of their events.

    A server may run. Exit code 1 if anything is wrong.
    """
    from runglass.store.sqlite.integrity import check as check_file

    settings = local_store.data_settings(data, store)
    local_store.require_database(settings)
    try:
        runs, folded, problems = check_file(settings.database, every_run=every_run)
    except UpgradeRequired:
        raise
    except StoreError as error:
        # A file that cannot be opened is a finding of this command, and no error of its own.
        runs, folded, problems = 0, 0, [str(error)]
    if as_json:
        write_json({"ok": not problems, "runs": runs, "foldedRuns": folded, "problems": problems})
    else:
        console = stdout()
        for problem in problems:
            write_line(console, problem)
        verdict = f"{formatting.counted(len(problems), 'problem')}" if problems else "all is well"
        write_line(console, f"{verdict}: {formatting.counted(runs, 'run')}, {folded:,} of them folded")
    if problems:
        raise click.exceptions.Exit(Exit.FAILED)


def _row(project: "ProjectUsage") -> Row:
    return Row(
        (
            Cell(f"{project.org}/{project.project}"),
            Cell(formatting.count(project.runs)),
            Cell(formatting.count(project.events)),
            Cell(formatting.size(project.event_bytes)),
            Cell(formatting.count(project.steps)),
            Cell(formatting.size(project.step_bytes)),
            Cell(formatting.size(project.outcome_bytes)),
            Cell(formatting.size(project.open_bytes)),
        )
    )


group.add_command(export_raw)

"""`runglass data`, `migrate`, `processes` and `audit`: a database, its users and its changes."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from runglass import __version__
from runglass.cli import options
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.local_store import DataFolder
from runglass.cli.commands.run_files import cleans_up_on_sigterm, export_raw
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal import formatting, output
from runglass.cli.terminal.output import log_to_stderr, note, stdout, write_json, write_line
from runglass.cli.terminal.table import Column, Row, print_table
from runglass.errors import StoreError, UpgradeRequired
from runglass.store.base import Store
from runglass.store.catalog import Catalog
from runglass.store.leases import HeldLease
from runglass.support.clock import iso
from runglass.wire.admin_api import AuditEntry

USAGE_COLUMNS = (
    Column("project"),
    Column("runs", right=True),
    Column("events", right=True, spare=2),
    Column("event data", right=True),
    Column("steps", right=True, spare=3),
    Column("step data", right=True),
    Column("outcomes", right=True, spare=1),
    Column("open runs", right=True, spare=1),
)

PROCESS_COLUMNS = (
    *map(Column, ("process", "version", "executes runs", "since")),
    Column("runs", right=True),
    Column("lease"),
)


@click.group("data", cls=options.CommandGroup)
def group() -> None:
    """Measure, copy, check or shrink the database."""


@group.command()
@options.data_folder
@options.as_json
def usage(folder: DataFolder, as_json: bool) -> None:
    """Show the size of each project, of free space and of the write-ahead log. A server may run."""
    # Imported here, as in the commands below: the module brings SQLite along, for which no other is to wait.
    from runglass.store.sqlite.database_file import usage as usage_of

    found = usage_of(folder.database(on_postgres="ask psql, as with \\l+ and \\d+"))
    if as_json:
        write_json(found)
        return
    count, size = formatting.count, formatting.size
    rows = [
        Row.of(
            *(f"{each.org}/{each.project}", count(each.runs), count(each.events), size(each.event_bytes)),
            *(count(each.steps), size(each.step_bytes), size(each.outcome_bytes), size(each.open_bytes)),
        )
        for each in found.projects
    ]
    print_table(USAGE_COLUMNS, rows)
    console = stdout()
    file, free, log = map(size, (found.file_bytes, found.free_bytes, found.log_bytes))
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
def vacuum(folder: DataFolder) -> None:
    """Rebuild the database without free space. No server may run; needs as much disk space again."""
    from runglass.store.data_folder import exclusive
    from runglass.store.sqlite.database_file import rebuild

    database = folder.database(on_postgres="its autovacuum does this, and VACUUM FULL in psql")
    with exclusive(database):
        before = database.stat().st_size
        rebuild(database)
        after = database.stat().st_size
    write_line(stdout(), f"{formatting.size(before)} before, {formatting.size(after)} now")


@group.command()
@click.argument("file", type=options.FILE, metavar="FILE", help="The copy; it must not exist.")
@options.data_folder
def backup(file: Path, folder: DataFolder) -> None:
    """Copy the database as of one moment, while its server runs.

    To restore it, start the server with --store sqlite:///FILE, or replace the database with it.
    """
    from runglass.store.sqlite.database_file import back_up

    database = folder.database(on_postgres="copy it with pg_dump, or archive its write-ahead log")
    try:
        with cleans_up_on_sigterm():
            back_up(database, file)
    except FileExistsError as error:
        raise UsageError(f"{str(file)!r} exists and is left as it is: name another file") from error
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be written: {error.strerror}") from error
    write_line(stdout(), f"{file}  {formatting.size(file.stat().st_size)}")


@group.command()
@click.option("--all", "every_run", is_flag=True, help="Check the log of every run; by default of 200.")
@options.data_folder
@options.as_json
def check(every_run: bool, folder: DataFolder, as_json: bool) -> None:
    """Check logs, traces, rows and sums against each other. Exit code 1 if anything is wrong.

    On SQLite this includes the file itself. Servers may run: the check reads one moment and changes nothing.
    """
    # It brings the engine along.
    from runglass.runtime.composition import check_store

    local_store.find_store(settings := folder.settings())
    with output.stderr().status("") as status:
        try:
            runs, folded, problems = check_store(
                settings,
                every_run=every_run,
                tell=lambda done, total: status.update(f"{done:,} of {total:,} runs"),
            )
        except StoreError as error:
            if settings.postgres is not None or isinstance(error, UpgradeRequired):
                raise
            # A file that cannot be opened is a finding of this command, and no error of its own.
            runs, folded, problems = 0, 0, [str(error)]
    if as_json:
        write_json({"ok": not problems, "runs": runs, "foldedRuns": folded, "problems": problems})
    else:
        console = stdout()
        for problem in problems:
            write_line(console, problem)
        verdict = formatting.counted(len(problems), "problem") if problems else "all is well"
        write_line(console, f"{verdict}: {formatting.counted(runs, 'run')}, {folded:,} of them folded")
    if problems:
        raise click.exceptions.Exit(Exit.FAILED)


group.add_command(export_raw)


@click.command()
@options.data_folder
@click.option("--no-backup", is_flag=True, help="Upgrade an SQLite file without copying it first.")
def migrate(folder: DataFolder, no_backup: bool) -> None:
    """Upgrade the database to the schema of this version, as `serve` and `worker` do at their start.

    An SQLite file is copied first, and no server may use it meanwhile; back up a PostgreSQL yourself. One
    process migrates at a time, the others wait.
    """
    # It brings the engine along.
    from runglass.runtime.composition import upgrade_store

    local_store.find_store(settings := folder.settings())
    log_to_stderr(settings.log_level, settings.log_format)
    asyncio.run(upgrade_store(settings, with_copy=not no_backup))
    write_line(stdout(), f"{settings.store_name} has the schema of Runglass {__version__}")


@click.command()
@options.data_folder
@options.as_json
def processes(folder: DataFolder, as_json: bool) -> None:
    """List the servers and workers on the store, oldest first, with their numbers of runs."""

    async def read(store: Store) -> tuple[list[HeldLease], datetime]:
        """The leases, and what time it is by the clock that they run by."""
        return await store.leases(), store.clock.now()

    leases, now = local_store.in_store(folder.settings(), read)
    found, rows = [], []
    for held in leases:
        host, pid, version, executes_runs = held.process
        process = {"host": host, "pid": pid, "version": version, "executesRuns": executes_runs}
        found.append(process | {"since": held.since, "leaseExpiresAt": held.expires_at, "runs": held.runs})
        executes, lease = "yes" if executes_runs else "no", "held"
        if datetime.fromisoformat(held.expires_at) <= now:
            lease = "ran out"
        age = formatting.age(held.since, now=now)
        rows.append(Row.of(f"{host}:{pid}", version, executes, age, formatting.count(held.runs), lease))
    if as_json:
        write_json(found)
    elif rows:
        print_table(PROCESS_COLUMNS, rows)
    else:
        write_line(stdout(), "no process has the store open")


AUDIT_COLUMNS = (
    *(Column("at"), Column("project", spare=1), Column("who"), Column("from", spare=2)),
    *(Column("action"), Column("what"), Column("details", spare=3, least=24)),
)


@click.command()
@options.optional_project(help="By default all projects.")
@options.since
@click.option("--action", metavar="ACTION", help="Only this action, such as key.revoked.")
@options.limit
@options.data_folder
@options.as_json
def audit(
    project: ProjectName | None,
    since: datetime | None,
    action: str | None,
    limit: int,
    folder: DataFolder,
    as_json: bool,
) -> None:
    """List changes of keys, flows, runs and project settings, and who made them; newest first."""

    async def read(store: Catalog) -> list[AuditEntry]:
        project_id = None if project is None else (await local_store.named_project(store, project)).id
        since_at = None if since is None else iso(since.astimezone(UTC))
        return await store.audit(project_id, since=since_at, action=action, limit=limit + 1)

    found = local_store.in_store(folder.settings(), read)
    entries = found[:limit]
    if as_json:
        write_json(entries)
        return
    rows = []
    for entry in entries:
        actor, at = entry.actor, formatting.local_time(entry.at)
        who = actor.kind if actor.key_id is None else f"{actor.kind} {actor.key_id}"
        who = who if actor.name is None else f"{who} ({actor.name})"
        details = msgspec.json.encode(entry.details).decode() if entry.details else ""
        rows.append(Row.of(at, entry.project, who, actor.address, entry.action, entry.subject, details))
    print_table(AUDIT_COLUMNS, rows)
    if len(found) > limit:
        note(f"there are older ones; --limit shows more than these {limit}")

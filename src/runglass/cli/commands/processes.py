"""`runglass processes`: the servers and workers that share a store."""

import asyncio
from datetime import datetime
from pathlib import Path

import click

from runglass.cli import options
from runglass.cli.backends import local_store
from runglass.cli.terminal.formatting import age, count
from runglass.cli.terminal.output import stdout, write_json, write_line
from runglass.cli.terminal.table import Cell, Column, Row, print_table
from runglass.config.settings import Settings
from runglass.store.process_records import HeldLease

COLUMNS = (
    Column("process"),
    Column("version"),
    Column("executes runs"),
    Column("since"),
    Column("runs", right=True),
    Column("lease"),
)


@click.command()
@options.data_folder
@options.as_json
def processes(data: Path | None, store: str | None, as_json: bool) -> None:
    """Servers and workers on the store, oldest first, with how many runs each has."""
    found, now = asyncio.run(_leases(local_store.data_settings(data, store)))
    if as_json:
        write_json([_as_json(each) for each in found])
    elif found:
        print_table(COLUMNS, [_row(each, now=now) for each in found])
    else:
        write_line(stdout(), "no process has the store open")


async def _leases(settings: Settings) -> tuple[list[HeldLease], datetime]:
    """The leases, and what time it is by the clock that they run by."""
    async with local_store.existing_store(settings) as store:
        return await store.leases(), store.clock.now()


def _row(held: HeldLease, *, now: datetime) -> Row:
    host, pid, version, executes_runs = held.process
    is_over = datetime.fromisoformat(held.expires_at) <= now
    return Row(
        (
            Cell(f"{host}:{pid}"),
            Cell(version),
            Cell("yes" if executes_runs else "no"),
            Cell(age(held.since, now=now)),
            Cell(count(held.runs)),
            Cell("ran out" if is_over else "held"),
        )
    )


def _as_json(held: HeldLease) -> dict[str, object]:
    host, pid, version, executes_runs = held.process
    return {
        "host": host,
        "pid": pid,
        "version": version,
        "executesRuns": executes_runs,
        "since": held.since,
        "leaseExpiresAt": held.expires_at,
        "runs": held.runs,
    }

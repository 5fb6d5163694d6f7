"""`runglass audit`: the audit log of a data folder, each change with its actor and address."""

from datetime import UTC, datetime

import click
import msgspec

from runglass.cli import argument_parsers, options
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.local_store import DataFolder
from runglass.cli.terminal.formatting import local_time
from runglass.cli.terminal.output import note, write_json
from runglass.cli.terminal.table import Column, Row, print_table
from runglass.store.base import Store
from runglass.support.clock import iso
from runglass.wire.admin_api import AuditEntry

COLUMNS = (
    Column("at"),
    Column("project", spare=1),
    Column("who"),
    Column("from", spare=2),
    Column("action"),
    Column("what"),
    Column("details", spare=3, least=24),
)


@click.command()
@click.argument(
    "project",
    type=argument_parsers.project_name,
    required=False,
    metavar="[ORG/PROJECT]",
    help="By default every project.",
)
@click.option(
    "--since",
    type=argument_parsers.since,
    metavar="TIME",
    help="Only changes then or later: 30m, 2h, 1d, 2026-11-20.",
)
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
    """Changes of keys, flows, runs and settings of projects, with who made them; newest first."""
    after = None if since is None else iso(since.astimezone(UTC))

    async def read(store: Store) -> list[AuditEntry]:
        project_id = None if project is None else (await local_store.existing_project(store, project)).id
        return await store.audit(project_id, since=after, action=action, limit=limit + 1)

    found = local_store.in_store(folder.settings(), read)
    entries = found[:limit]
    if as_json:
        write_json(entries)
        return
    print_table(COLUMNS, [_row(entry) for entry in entries])
    if len(found) > limit:
        note(f"there are older ones; --limit shows more than these {limit}")


def _row(entry: AuditEntry) -> Row:
    actor = entry.actor
    who = actor.kind if actor.key_id is None else f"{actor.kind} {actor.key_id}"
    return Row.of(
        local_time(entry.at),
        entry.project,
        who if actor.name is None else f"{who} ({actor.name})",
        actor.address,
        entry.action,
        entry.subject,
        msgspec.json.encode(entry.details).decode() if entry.details else "",
    )

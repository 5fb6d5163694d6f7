"""`runglass audit`: the audit log of a data folder, each change with its actor and address."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from runglass.cli import argument_parsers, options
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.terminal.formatting import local_time
from runglass.cli.terminal.output import note, write_json
from runglass.cli.terminal.table import Cell, Column, Row, print_table
from runglass.config.settings import Settings
from runglass.support.clock import iso
from runglass.wire.admin_api import Actor, AuditEntry

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
    data: Path | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Changes of keys, flows, runs and settings of projects, with who made them; newest first."""
    after = None if since is None else iso(since.astimezone(UTC))
    settings = local_store.data_settings(data, store)
    found = asyncio.run(_entries(settings, project, after, action, limit + 1))
    entries = found[:limit]
    if as_json:
        write_json(entries)
        return
    print_table(COLUMNS, [_row(entry) for entry in entries])
    if len(found) > limit:
        note(f"there are older ones; --limit shows more than these {limit}")


async def _entries(
    settings: Settings, name: ProjectName | None, since: str | None, action: str | None, limit: int
) -> list[AuditEntry]:
    async with local_store.existing_store(settings) as store:
        project_id = None if name is None else (await local_store.existing_project(store, name)).id
        return await store.audit(project_id, since=since, action=action, limit=limit)


def _row(entry: AuditEntry) -> Row:
    texts = (
        local_time(entry.at),
        entry.project,
        _actor_text(entry.actor),
        entry.actor.address,
        entry.action,
        entry.subject,
        msgspec.json.encode(entry.details).decode() if entry.details else "",
    )
    return Row([Cell(text) for text in texts])


def _actor_text(actor: Actor) -> str:
    kind = actor.kind if actor.key_id is None else f"{actor.kind} {actor.key_id}"
    return kind if actor.name is None else f"{kind} ({actor.name})"

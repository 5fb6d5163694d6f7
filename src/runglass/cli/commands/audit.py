"""`runglass audit`: who changed what in the projects of a data folder, and from where."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from runglass.admin_api import Actor, AuditEntry
from runglass.cli import argument_parsers
from runglass.cli.argument_parsers import ProjectName, project_name
from runglass.cli.backends import local_store as data_folder
from runglass.cli.options import AsJson, Data, Store
from runglass.cli.terminal.formatting import local_time
from runglass.cli.terminal.output import note, write_json
from runglass.cli.terminal.table import Cell, Column, Row, print_table
from runglass.clock import iso
from runglass.settings import Settings

COLUMNS = (
    Column("at"),
    Column("project", spare=1),
    Column("who"),
    Column("from", spare=2),
    Column("action"),
    Column("what"),
    Column("details", spare=3, least=24),
)


def audit(
    project: Annotated[
        str | None, typer.Argument(metavar="[ORG/PROJECT]", help="By default every project.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only changes then or later: 30m, 2h, 1d, 2026-11-20.")
    ] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as key.revoked.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Who made and revoked keys, pushed flows, deleted runs or changed a project's settings; newest first."""
    name = None if project is None else project_name(project)
    after = (
        None if since is None else iso(argument_parsers.since(since, now=datetime.now(UTC)).astimezone(UTC))
    )
    settings = data_folder.data_settings(data, store)
    found = asyncio.run(_entries(settings, name, after, action, limit + 1))
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
    async with data_folder.existing_store(settings) as store:
        project_id = None if name is None else (await data_folder.existing_project(store, name)).id
        return await store.audit(project_id, since=since, action=action, limit=limit)


def _row(entry: AuditEntry) -> Row:
    texts = (
        local_time(entry.at),
        entry.project,
        _who(entry.actor),
        entry.actor.address,
        entry.action,
        entry.subject,
        msgspec.json.encode(entry.details).decode() if entry.details else "",
    )
    return Row([Cell(text) for text in texts])


def _who(actor: Actor) -> str:
    what = actor.kind if actor.key_id is None else f"{actor.kind} {actor.key_id}"
    return what if actor.name is None else f"{what} ({actor.name})"

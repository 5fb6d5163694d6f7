"""`runglass keys`: the API keys of a data folder. A key is shown once, when it is made."""

import asyncio
from pathlib import Path

import click

from runglass.cli import options
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.exit_codes import NotFound
from runglass.cli.options import CommandGroup
from runglass.cli.terminal.formatting import UNKNOWN, local_time
from runglass.cli.terminal.output import note, stdout, write_json, write_line
from runglass.cli.terminal.table import Cell, Column, Row, print_table
from runglass.config.settings import Settings
from runglass.store.records import ApiKey

COLUMNS = (
    Column("id", right=True),
    Column("key"),
    Column("role"),
    Column("created"),
    Column("revoked"),
)

ROLES = ("admin", "run", "read")


@click.group("keys", cls=CommandGroup)
def group() -> None:
    """API keys of a data folder; also while its server runs."""


@group.command()
@options.project
@click.option("--role", type=click.Choice(ROLES), default="admin", help="What the key may do.")
@options.data_folder
def create(project: ProjectName, role: str, data: Path | None, store: str | None) -> None:
    """Make a key and print it, alone, on stdout. The project is made too where it is new."""
    asyncio.run(_create(local_store.data_settings(data, store), project, role))


@group.command("list")
@options.project
@options.data_folder
@options.as_json
def list_keys(project: ProjectName, data: Path | None, store: str | None, as_json: bool) -> None:
    """The project's keys, revoked ones too: their beginnings, never the keys."""
    keys = asyncio.run(_keys(local_store.data_settings(data, store), project))
    if as_json:
        write_json([_plain(key) for key in keys])
    else:
        print_table(COLUMNS, [_row(key) for key in keys])


@group.command()
@options.project
@click.argument("key_id", type=options.WholeNumber(), metavar="ID", help="The id that `keys list` shows.")
@options.data_folder
def revoke(project: ProjectName, key_id: int, data: Path | None, store: str | None) -> None:
    """Make a key useless, at once and for good; a running server breaks off its answers to it."""
    asyncio.run(_revoke(local_store.data_settings(data, store), project, key_id))


async def _create(settings: Settings, name: ProjectName, role: str) -> None:
    async with local_store.any_store(settings) as store:
        project = await local_store.make_project(store, name)
        key, _ = await local_store.create_key(store, project, role, most=settings.max_keys_per_project)
    write_line(stdout(), key)


async def _keys(settings: Settings, name: ProjectName) -> list[ApiKey]:
    async with local_store.existing_store(settings) as store:
        return await store.keys((await local_store.existing_project(store, name)).id)


async def _revoke(settings: Settings, name: ProjectName, key_id: int) -> None:
    async with local_store.existing_store(settings) as store:
        project = await local_store.existing_project(store, name)
        key = next((each for each in await store.keys(project.id) if each.id == key_id), None)
        if key is None:
            raise NotFound(f"{name} has no key {key_id}; `runglass keys list {name}` shows which there are")
        await store.revoke_key(project.id, key_id, by=local_store.terminal_user())
    note(f"key {key_id} ({key.hint}…) of {name} is revoked")


def _row(key: ApiKey) -> Row:
    style = "" if key.revoked_at is None else "dim"
    revoked = UNKNOWN if key.revoked_at is None else local_time(key.revoked_at)
    texts = (str(key.id), f"{key.hint}…", key.role, local_time(key.created_at), revoked)
    return Row([Cell(text, style) for text in texts])


def _plain(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "hint": key.hint,
        "role": key.role,
        "createdAt": key.created_at,
        "revokedAt": key.revoked_at,
    }

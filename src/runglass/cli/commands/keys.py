"""`runglass keys`: the API keys of a data folder. A key is shown once, when it is made."""

import click

from runglass.cli import options
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.local_store import DataFolder
from runglass.cli.exit_codes import NotFound
from runglass.cli.terminal.formatting import UNKNOWN, local_time
from runglass.cli.terminal.output import note, stdout, write_json, write_line
from runglass.cli.terminal.table import Column, Row, print_table
from runglass.store.base import Store
from runglass.store.records import ApiKey, Project
from runglass.wire.admin_api import ROLES

COLUMNS = (
    Column("id", right=True),
    Column("key"),
    Column("role"),
    Column("created"),
    Column("revoked"),
)


@click.group("keys", cls=options.CommandGroup)
def group() -> None:
    """API keys of a data folder; also while its server runs."""


@group.command()
@options.project
@click.option("--role", type=click.Choice(ROLES), default="admin", help="What the key may do.")
@options.data_folder
def create(project: ProjectName, role: str, folder: DataFolder) -> None:
    """Make a key and print it, alone, on stdout. The project is made too where it is new."""
    settings = folder.settings()
    key = local_store.in_new_project(
        settings,
        project,
        lambda store, made: local_store.create_key(store, made, role, most=settings.max_keys_per_project),
    )
    write_line(stdout(), key)


@group.command("list")
@options.project
@options.data_folder
@options.as_json
def list_keys(project: ProjectName, folder: DataFolder, as_json: bool) -> None:
    """The project's keys, revoked ones too: their beginnings, never the keys."""
    keys = local_store.in_project(folder.settings(), project, lambda store, found: store.keys(found.id))
    if as_json:
        write_json(
            [
                {"id": key.id, "hint": key.hint, "role": key.role}
                | {"createdAt": key.created_at, "revokedAt": key.revoked_at}
                for key in keys
            ]
        )
    else:
        print_table(COLUMNS, [_row(key) for key in keys])


@group.command()
@options.project
@click.argument("key_id", type=options.WholeNumber(), metavar="ID", help="The id that `keys list` shows.")
@options.data_folder
def revoke(project: ProjectName, key_id: int, folder: DataFolder) -> None:
    """Make a key useless, at once and for good; a running server breaks off its answers to it."""

    async def revoke_in(store: Store, found: Project) -> str:
        key = next((each for each in await store.keys(found.id) if each.id == key_id), None)
        if key is None:
            raise NotFound(
                f"{project} has no key {key_id}; `runglass keys list {project}` shows which there are"
            )
        await store.revoke_key(found.id, key_id, by=local_store.terminal_user())
        return key.hint

    hint = local_store.in_project(folder.settings(), project, revoke_in)
    note(f"key {key_id} ({hint}…) of {project} is revoked")


def _row(key: ApiKey) -> Row:
    style = "" if key.revoked_at is None else "dim"
    revoked = UNKNOWN if key.revoked_at is None else local_time(key.revoked_at)
    return Row.of(str(key.id), f"{key.hint}…", key.role, local_time(key.created_at), revoked, style=style)

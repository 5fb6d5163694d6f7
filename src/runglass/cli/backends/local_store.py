"""The store of a data folder, for commands that work on it directly, whether or not its server runs."""

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.cli.terminal.output import is_watched, note, stderr, warn, write_line
from runglass.config.reader import read_settings
from runglass.config.settings import Settings, SettingsError
from runglass.store.base import Store
from runglass.store.catalog import Catalog
from runglass.store.keys import LOCAL_KEY, make_key
from runglass.store.records import ApiKey, Project, Role
from runglass.support.clock import iso
from runglass.wire.admin_api import ROLES, Actor

T = TypeVar("T")

MOST_NAMED = 10
"""Projects that a message names."""


class DataFolder(NamedTuple):
    """What the options `--data` and `--store` name, each None where it was not given."""

    data: Path | None = None
    store: str | None = None

    def settings(self) -> Settings:
        """The settings in force, with the options over them. Raises SettingsError."""
        return read_settings(self._asdict(), warn=warn)

    def database(self, *, on_postgres: str) -> Path:
        """The database file of these settings. Raises SettingsError, and NotFound where it does not exist.

        `on_postgres` says what to do instead where the store is none.
        """
        settings = self.settings()
        if settings.postgres is not None:
            raise SettingsError(
                f"this is for SQLite files, and the store is {settings.store_name!r}: {on_postgres}"
            )
        find_store(settings)
        return settings.database


def in_store(settings: Settings, work: Callable[[Store], Awaitable[T]], *, create: bool | None = None) -> T:
    """What `work` returns. Raises NotFound as `find_store` does."""
    find_store(settings, create=create)

    async def opened() -> T:
        # Imported here: the module brings the engine along, for which commands without a store do not wait.
        from runglass.runtime.composition import open_store

        async with open_store(settings) as store:
            return await work(store)

    return asyncio.run(opened())


def in_project(
    settings: Settings,
    name: ProjectName,
    work: Callable[[Store, Project], Awaitable[T]],
    *,
    create: bool | None = None,
) -> T:
    """What `work` returns of the project. `create` is as for `named_project`. Raises NotFound."""

    async def found(store: Store) -> T:
        return await work(store, await named_project(store, name, create=create))

    return in_store(settings, found, create=create)


def find_store(settings: Settings, *, create: bool | None = None) -> None:
    """Says on a terminal which store a command works on.

    Raises NotFound for a new one, unless it is to be made: a mistyped folder is not to become a database.
    """
    # A PostgreSQL makes no database for whoever connects to one.
    if not create and settings.postgres is None and not settings.database.exists():
        raise NotFound(
            f"there is no database {settings.store_name!r}; name its folder with --data, or create it"
            " and a key with `runglass keys create ORG/PROJECT --create`"
        )
    speaks_to(settings.store_name)


@cache
def speaks_to(place: str) -> None:
    """Says on a terminal which server or store a command works on, once."""
    if is_watched(stderr()):
        write_line(stderr(), f"({place})", style="dim")


async def named_project(store: Catalog, name: ProjectName | None, *, create: bool | None = None) -> Project:
    """The project; without a name the only one. With `create` it is made where it is new, as stderr says.

    Raises UsageError where there are several, and NotFound, which names --create unless `create` is None.
    """
    if name is None:
        projects = await store.projects()
        if len(projects) == 1:
            return projects[0]
        if not projects:
            raise NotFound("there is no project yet; `runglass projects create ORG/PROJECT` makes one")
        names = ", ".join(f"{each.org}/{each.name}" for each in projects[:MOST_NAMED])
        raise UsageError(
            f"there are {len(projects):,} projects ({names}): say which, as ORG/PROJECT or --project"
        )
    project = await store.find_project(name.org, name.project)
    if project is None and create:
        project = await store.ensure_project(name.org, name.project, by=terminal_user())
        note(f"created project {name}")
    if project is None:
        listed = "`runglass projects list` shows which there are"
        what_to_do = listed if create is None else "add --create to make it"
        raise NotFound(f"project {name} does not exist; {what_to_do}")
    return project


def local_key(store: Store, project: Project) -> ApiKey:
    """The key of this user, which is in memory alone."""
    hint, now = terminal_user().name or "", iso(store.clock.now())
    return ApiKey(id=LOCAL_KEY, project_id=project.id, role="admin", hint=hint, created_at=now)


async def create_key(store: Catalog, project: Project, role: Role, *, most: int) -> tuple[str, ApiKey]:
    """A new key, and what the store keeps of it: only a hash, so the key must be shown now.

    Raises KeyLimitReached where the project has `most` already.
    """
    made = make_key()
    by = terminal_user()
    return made.key, await store.add_key(project.id, role, made.digest, made.hint, most=most, by=by)


async def viewing_key(store: Catalog, project: Project) -> ApiKey | None:
    """The key of the project with the highest role that may look at runs; None where it has none."""
    keys = [key for key in await store.keys(project.id) if key.revoked_at is None and key.role != "record"]
    return min(keys, key=lambda key: (ROLES.index(key.role), -key.id), default=None)


def terminal_user() -> Actor:
    """The user of this process, as the actor of entries in the audit log."""
    try:
        # The user id of the process cannot be forged, as the variables are that `getpass` would believe.
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container may run under a user id without a name.
        name = str(os.getuid())
    return Actor(kind="cli", name=name)

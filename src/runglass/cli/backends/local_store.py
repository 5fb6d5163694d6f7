"""The store of a data folder, for commands that work on it directly, whether or not its server runs."""

import getpass
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.exit_codes import NotFound
from runglass.cli.terminal.output import note, warn
from runglass.config.reader import read_settings
from runglass.config.settings import Settings
from runglass.store.base import Store
from runglass.store.records import ApiKey, Project, Role
from runglass.wire.admin_api import Actor
from runglass.wire.api_keys import make_key


def data_settings(data: Path | None, store: str | None) -> Settings:
    """The settings in force, with the flags over them. Raises SettingsError."""
    return read_settings({"data": data, "store": store}, warn=warn)


def require_database(settings: Settings) -> None:
    """Raises NotFound where the database file does not exist."""
    if not settings.database.exists():
        raise NotFound(
            f"there is no database {str(settings.database)!r}; name its folder with --data, "
            "or start it with `runglass keys create ORG/PROJECT`"
        )


@asynccontextmanager
async def any_store(settings: Settings) -> AsyncIterator[Store]:
    """The store, created where it is new. Raises StoreError."""
    # Imported here: the module brings the engine along, and commands without a store do not wait for that.
    from runglass.runtime.composition import open_store

    async with open_store(settings) as store:
        yield store


@asynccontextmanager
async def existing_store(settings: Settings) -> AsyncIterator[Store]:
    """The store, which must be there: a mistyped folder is not to become an empty database."""
    # A PostgreSQL makes no database for whoever connects to one.
    if settings.postgres is None:
        require_database(settings)
    async with any_store(settings) as store:
        yield store


async def existing_project(store: Store, name: ProjectName) -> Project:
    """The project. Raises NotFound."""
    project = await store.find_project(name.org, name.project)
    if project is None:
        raise NotFound(f"there is no project {str(name)!r}; `runglass projects list` shows which there are")
    return project


async def make_project(store: Store, name: ProjectName) -> Project:
    """The project, created where it is new, which is said on stderr."""
    if (project := await store.find_project(name.org, name.project)) is not None:
        return project
    project = await store.ensure_project(name.org, name.project, by=terminal_user())
    note(f"created project {name}")
    return project


async def create_key(store: Store, project: Project, role: Role, *, most: int) -> tuple[str, ApiKey]:
    """A new key and its record. The store keeps only a hash, so the key must be shown now.

    Raises KeyLimitReached where the project has `most` already.
    """
    made = make_key()
    key = await store.add_key(project.id, role, made.digest, made.hint, most=most, by=terminal_user())
    return made.key, key


def terminal_user() -> Actor:
    """The user of this process, as the actor of entries in the audit log."""
    try:
        # The user id of the process cannot be forged; `getpass` would believe environment variables.
        import pwd

        name = pwd.getpwuid(os.getuid()).pw_name
    except ImportError:
        name = getpass.getuser()
    except KeyError:
        # A container may run under a user id without a name.
        name = str(os.getuid())
    return Actor(kind="cli", name=name)

"""`runglass migrate`: the database gets the schema of this version, ahead of its servers."""

import asyncio
from pathlib import Path

import click

from runglass import __version__
from runglass.cli import options
from runglass.cli.backends import local_store
from runglass.cli.terminal.output import log_to_stderr, stdout, write_line


@click.command()
@options.data_folder
@click.option("--no-backup", is_flag=True, help="Upgrade an SQLite file without a copy of it.")
def migrate(data: Path | None, store: str | None, no_backup: bool) -> None:
    """Bring the database to the schema of this version, as `serve` and `worker` do when they start.

    An SQLite file, which no server may use meanwhile, is copied before; copy a PostgreSQL yourself. Of
    several at a time one does the work, and the others wait for it.
    """
    # Imported here: the module brings the engine along, and commands without a store do not wait for that.
    from runglass.runtime.composition import upgrade_store

    settings = local_store.data_settings(data, store)
    log_to_stderr(settings.log_level, settings.log_format)
    asyncio.run(upgrade_store(settings, with_copy=not no_backup))
    write_line(stdout(), f"{settings.store_name} has the schema of Runglass {__version__}")

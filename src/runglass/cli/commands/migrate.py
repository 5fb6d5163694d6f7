"""`runglass migrate`: the database gets the schema of this version, ahead of its servers."""

import asyncio
from pathlib import Path

import click

from runglass import __version__
from runglass.cli import options
from runglass.cli.backends import local_store
from runglass.cli.terminal.output import stdout, write_line
from runglass.settings import Settings


@click.command()
@options.data_folder
def migrate(data: Path | None, store: str | None) -> None:
    """Bring the database to the schema of this version, as every command does that opens it.

    Of several at a time one does the work, and the others wait for it.
    """
    settings = local_store.data_settings(data, store)
    asyncio.run(_migrate(settings))
    write_line(stdout(), f"{settings.store_name} has the schema of Runglass {__version__}")


async def _migrate(settings: Settings) -> None:
    async with local_store.any_store(settings):
        pass

"""`runglass data export-raw`: all that is stored of a run, as it is, for a run that cannot be read."""

import asyncio
import base64
from pathlib import Path
from typing import IO

import click
import msgspec

from runglass.cli import options
from runglass.cli.backends import local_store
from runglass.cli.backends.new_file import new_file
from runglass.cli.exit_codes import NotFound
from runglass.cli.terminal.output import note
from runglass.config.settings import Settings
from runglass.store.records import RawRow


@click.command()
@click.argument("run_id", metavar="RUN_ID", help="The run's whole id.")
@click.argument("file", type=options.FILE, metavar="FILE", help="A new file, which only you may read.")
@options.data_folder
def export_raw(run_id: str, file: Path, data: Path | None, store: str | None) -> None:
    """Write every row of a run to a file, one as JSON per line, whether or not the run can be read.

    Bytes are `{"text": …}` where they are UTF-8, and else `{"base64": …}`.
    """
    rows = asyncio.run(_export(local_store.data_settings(data, store), run_id.lower(), file))
    note(f"wrote {rows:,} rows of run {run_id} to {file}")


async def _export(settings: Settings, run_id: str, file: Path) -> int:
    async with local_store.existing_store(settings) as store:
        if await store.run(run_id) is None:
            raise NotFound(f"there is no run {run_id!r} in {settings.store_name!r}")
        with new_file(file) as written:
            lines = _Lines(written)
            await store.raw_rows(run_id, lines.take)
        return lines.count


class _Lines:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.count = 0

    def take(self, table: str, row: RawRow) -> None:
        plain = {name: _plain(value) if isinstance(value, bytes) else value for name, value in row.items()}
        self.file.write(msgspec.json.encode({"table": table, "row": plain}) + b"\n")
        self.count += 1


def _plain(value: bytes) -> dict[str, str]:
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}

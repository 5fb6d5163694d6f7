"""Options and arguments that several commands share, each spelled and described once.

A command takes them as decorators, in the order in which its help shows them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from runglass.cli import argument_parsers
from runglass.config.address import has_password, is_postgres
from runglass.wire.run_api import CaptureMode

Function = TypeVar("Function", bound=Callable[..., Any])


class WholeNumber(click.IntRange):
    """A whole number within bounds. By its own name click would ask for an `integer range`."""

    name = "whole number"


class StoreAddress(click.ParamType[str]):
    """The address of a store, without a password: other users can see the arguments of a process."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address. Raises BadParameter for one that may hold a password."""
        if is_postgres(value) and has_password(value):
            self.fail(
                "a password here could be seen by others on this machine; give the address in RUNGLASS_STORE"
                " or runglass.toml, or the password alone in PGPASSWORD or in the file ~/.pgpass",
                param,
                ctx,
            )
        return value


FILE = click.Path(path_type=Path)
STORE = StoreAddress()

project = click.argument(
    "project",
    type=argument_parsers.project_name,
    metavar="ORG/PROJECT",
    help="The organisation and the project's name in it.",
)
flow = click.argument(
    "flow",
    type=argument_parsers.flow_name,
    metavar="ORG/PROJECT/SLUG",
    help="The project and the flow's slug in it.",
)
flow_files = click.argument(
    "files", type=FILE, nargs=-1, required=True, metavar="FILE…", help="Flow files, YAML or JSON."
)
run_id = click.argument(
    "run_id", metavar="RUN_ID", help="The run's id, its end or beginning, or last for the newest run."
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
limit = click.option("--limit", type=WholeNumber(min=1), default=20, metavar="N", help="How many at most.")


def data_folder(command: Function) -> Function:
    """`--data` and `--store`: which database, for commands that work on it directly."""
    data = click.option(
        "--data",
        type=FILE,
        metavar="FOLDER",
        help="Folder of the database; by default as `runglass serve` takes it.",
    )
    store = click.option(
        "--store", type=STORE, metavar="URL", help="The database, where it is not in the data folder."
    )
    return data(store(command))


def recording_and_log(command: Function) -> Function:
    """`--capture`, `--log-level` and `--log-format`: what a server or worker writes down."""
    capture = click.option(
        "--capture",
        type=click.Choice(get_args(CaptureMode)),
        help="What traces keep where neither flow nor project says.",
    )
    log_level = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="Least severe message that is logged.",
    )
    log_format = click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        help="Lines of text, or a JSON object on each line.",
    )
    return capture(log_level(log_format(command)))


def server(command: Function) -> Function:
    """`--base-url` and `--api-key`: which server, and with which key."""
    base_url = click.option(
        "--base-url",
        envvar="RUNGLASS_BASE_URL",
        show_envvar=True,
        metavar="URL",
        help="The server, as `serve` prints it: http://localhost:8080.",
    )
    api_key = click.option(
        "--api-key",
        envvar="RUNGLASS_API_KEY",
        show_envvar=True,
        metavar="KEY",
        help="The key; better set in the environment, where no process list shows it.",
    )
    return base_url(api_key(command))

"""Options and arguments that several commands share, each spelled and described once; and their groups.

A command takes them as decorators, in the order in which its help shows them.
"""

import inspect
import math
import re
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import msgspec

from runglass.cli import argument_parsers
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends.local_store import DataFolder
from runglass.cli.backends.server import Server
from runglass.config.settings import Settings
from runglass.log.trace import RunStatus

Command = Callable[..., None]


class WholeNumber(click.IntRange):
    """A whole number within bounds. By its own name click would ask for an `integer range`."""

    name = "whole number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. Raises BadParameter for one that is out of bounds, or larger than any there may be."""
        number: int = super().convert(value, param, ctx)
        if abs(number) > argument_parsers.MOST:
            self.fail(f"{value} is out of bounds: the largest number is {argument_parsers.MOST}.", param, ctx)
        return number


class Number(click.FloatRange):
    """A number within bounds, which `nan` is not."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Raises BadParameter."""
        number = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is no number.", param, ctx) if math.isnan(number) else number


FILE = click.Path(path_type=Path)
SETTINGS = {field.name: field for field in msgspec.structs.fields(Settings)}
LIMITS = ("description", "ge", "le")

project = click.argument(
    "project",
    type=argument_parsers.project_name,
    metavar="ORG/PROJECT",
    help="Organisation and project.",
)
optional_project = partial(
    click.argument, "project", type=argument_parsers.project_name, required=False, metavar="[ORG/PROJECT]"
)
flow = click.argument(
    "flow",
    type=argument_parsers.flow_name,
    metavar="[ORG/PROJECT/]SLUG",
    help="The flow's slug, and its project, by default that of the key.",
)
flow_files = click.argument(
    "files", type=FILE, nargs=-1, required=True, metavar="FILE…", help="Flow files, YAML or JSON."
)
run_id = click.argument(
    "run_id", metavar="RUN_ID", help="The run's id, its beginning or end, or last for the newest run."
)

run_or_query = click.argument(
    "runs",
    metavar="RUN_ID|QUERY",
    help="A run, as `runs show` takes it, or a query, as `runs list` takes it.",
)

of_flow = click.option("--flow", metavar="FLOW", help="Only of this flow: its id, SLUG or ORG/PROJECT/SLUG.")
of_status = click.option("--status", type=click.Choice(get_args(RunStatus)), help="Only with this status.")
since = click.option(
    "--since",
    type=argument_parsers.since,
    metavar="TIME",
    help="Only since then: 30m, 2h, 1d, 2026-11-20.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
limit = click.option("--limit", type=WholeNumber(min=1), default=20, metavar="N", help="Maximum number.")


create = click.option("--create", is_flag=True, help="Create the project if it is new, and its data folder.")


def data_folder(command: Command) -> Command:
    """`--data` and `--store`: the `folder` of a command that works on a database directly."""

    @click.option(
        "--data",
        type=FILE,
        metavar="FOLDER",
        help="Folder of the database; by default as `runglass serve` takes it.",
    )
    @click.option(
        "--store",
        type=argument_parsers.store_address,
        metavar="URL",
        help="The database, if it is not in the data folder.",
    )
    @wraps(command)
    def with_folder(*, data: Path | None, store: str | None, **given: Any) -> None:
        command(folder=DataFolder(data, store), **given)

    return with_folder


def setting(
    name: str, flag: str = "", *, metavar: str | None = None, kind: Any = None
) -> Callable[[Command], Command]:
    """The flag of a setting; `Settings` says what it takes, what it means, and what it is by default."""
    field = SETTINGS[name]
    about: dict[str, Any] = {}
    allowed = field.type
    while not (isinstance(allowed, type) or get_origin(allowed) is Literal):
        for meta in getattr(allowed, "__metadata__", ()):
            about |= {key: value for key in LIMITS if (value := getattr(meta, key)) is not None}
        allowed = get_args(allowed)[0]
    if allowed is Path:
        kind = FILE
    elif allowed is int:
        kind = WholeNumber(about.get("ge"), about.get("le"))
    elif get_origin(allowed) is Literal:
        kind = click.Choice(get_args(allowed))
    # A word of the program stays as it is.
    text = re.sub("^[a-z]", lambda first: first[0].upper(), about["description"]).replace("`", "")
    is_told = field.default is None or "by default" in text.lower()
    default = "" if is_told else f"; by default {field.default}"
    flag = flag or f"--{name.replace('_', '-')}"
    return click.option(flag, name, type=kind, metavar=metavar, help=f"{text}{default}.")


def flow_server(command: Command) -> Command:
    """`--base-url` and `--api-key`, or `--data` and `--store`: the `server` of a command about flows.

    Without a key it is the data folder.
    """

    @click.option(
        "--base-url",
        envvar="RUNGLASS_BASE_URL",
        show_envvar=True,
        metavar="URL",
        help="The server, as `serve` prints it: http://localhost:8080.",
    )
    @click.option(
        "--api-key",
        envvar="RUNGLASS_API_KEY",
        show_envvar=True,
        metavar="KEY",
        help="The key; prefer the environment, which no process list shows.",
    )
    @wraps(command)
    def with_server(*, base_url: str | None, api_key: str | None, folder: DataFolder, **given: Any) -> None:
        command(server=Server(base_url, api_key, folder, or_folder=True), **given)

    return data_folder(with_server)


def server(command: Command) -> Command:
    """The same with the `--project` in the folder, for commands about runs, which need a key or a folder."""

    @click.option(
        "--project",
        type=argument_parsers.project_name,
        metavar="ORG/PROJECT",
        help="With --data: the project, where the folder has several.",
    )
    @wraps(command)
    def of_project(*, server: Server, project: ProjectName | None, **given: Any) -> None:
        command(server=server._replace(project=project, or_folder=False), **given)

    return flow_server(of_project)


class CommandGroup(click.Group):
    """A group whose help lists the commands in the order of the code, each with its whole summary."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order in which the commands were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one row for each command. Click alone would cut a summary at the end of a line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(command)) for name, command in self.commands.items()])


def summary(command: click.Command) -> str:
    """The first paragraph of a command's help, on one line."""
    return inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")

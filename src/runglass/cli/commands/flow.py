"""`runglass flow`: check flow files, push them, publish and roll back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from runglass.admin_api import FlowHistory, FlowInfo
from runglass.cli import argument_parsers
from runglass.cli.argument_parsers import ProjectName, flow_name, project_name
from runglass.cli.backends.flow_backend import flow_place
from runglass.cli.backends.flow_files import read_flow
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.options import ApiKey, AsJson, BaseUrl, Data, Store
from runglass.cli.terminal.formatting import UNKNOWN, local_time
from runglass.cli.terminal.output import note, one_line, stdout, warn, write_json, write_line
from runglass.cli.terminal.table import Cell, Column, Row, print_table
from runglass.errors import FlowFileError, Problem

if TYPE_CHECKING:
    from runglass.flow import Flow

app = typer.Typer(
    no_args_is_help=True,
    help="Flow files, and the flows of a server or, without a key or with --data, of a data folder.",
)

Files = Annotated[list[Path], typer.Argument(metavar="FILE…")]
FlowName = Annotated[str, typer.Argument(metavar="ORG/PROJECT/SLUG")]

COLUMNS = (
    Column("flow"),
    Column("production"),
    Column("name", spare=2),
    Column("changed", spare=1),
    Column("id"),
)


@app.command()
def check(files: Files) -> None:
    """Check flow files: `ok` for a good one, else every mistake as FILE:LINE:COLUMN: message at path.

    What does not keep a flow from being used is a warning, on stderr.
    """
    console = stdout()
    bad = 0
    for file in files:
        try:
            checked = read_flow(file)
        except FlowFileError as error:
            bad += 1
            write_line(console, str(error))
            _warn(file, error.warnings)
        else:
            write_line(console, f"{file}: ok")
            _warn(file, checked.warnings)
    if bad:
        note(f"{bad} of {len(files)} files cannot be used")
        raise typer.Exit(Exit.FAILED)


@app.command()
def push(
    files: Files,
    to: Annotated[
        str, typer.Option(metavar="ORG/PROJECT", help="The project; a data folder makes it where it is new.")
    ],
    publish: Annotated[
        bool, typer.Option("--publish", help="Also make each the production version.")
    ] = False,
    data: Data = None,
    store: Store = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Store flow files as drafts. If one has a mistake, none is stored."""
    name = project_name(to)
    flows = _read_all(files)
    with flow_place(data, store, base_url, api_key) as place:
        for slug, flow in flows.items():
            place.push(name, flow)
            version = f"version {place.publish(name, slug)}" if publish else "draft"
            write_line(stdout(), f"{name}/{slug}  {version}")


@app.command("list")
def list_flows(
    project: Annotated[str, typer.Argument(metavar="ORG/PROJECT")],
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """The project's flows and which version of each is in production."""
    name = project_name(project)
    with flow_place(data, store, base_url, api_key) as place:
        flows = place.flows(name)
    if as_json:
        write_json([_plain(name, flow) for flow in flows])
    else:
        print_table(COLUMNS, [_row(name, flow) for flow in flows])


@app.command()
def show(
    flow: FlowName,
    version: Annotated[
        str | None, typer.Option(help="Print this one as JSON: production, draft or a number.")
    ] = None,
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """A flow and its versions, or with --version the steps of one."""
    name, slug = flow_name(flow)
    wanted = None if version is None else argument_parsers.version(version)
    with flow_place(data, store, base_url, api_key) as place:
        found = place.flow(name, slug)
        if wanted is not None:
            number = (found.production_version or 0) if wanted == "production" else wanted
            write_json(place.tree(name, slug, 0 if number == "draft" else number), indent=2)
            return
    if as_json:
        write_json(_plain(name, found))
        return
    for line in _lines(name, found):
        write_line(stdout(), line)


@app.command()
def publish(
    flow: FlowName,
    data: Data = None,
    store: Store = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Make the draft of a flow its production version."""
    name, slug = flow_name(flow)
    with flow_place(data, store, base_url, api_key) as place:
        version = place.publish(name, slug)
    write_line(stdout(), f"{name}/{slug}  version {version}")


@app.command()
def rollback(
    flow: FlowName,
    version: Annotated[
        int, typer.Argument(min=1, metavar="VERSION", help="A published version, older or newer.")
    ],
    data: Data = None,
    store: Store = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Put another published version into production; the draft stays as it is."""
    name, slug = flow_name(flow)
    with flow_place(data, store, base_url, api_key) as place:
        place.set_production(name, slug, version)
    write_line(stdout(), f"{name}/{slug}  version {version}")


def _warn(file: Path, warnings: list[Problem]) -> None:
    for warning in warnings:
        warn(warning.located(str(file)))


def _read_all(files: list[Path]) -> "dict[str, Flow]":
    flows: dict[str, Flow] = {}
    came_from: dict[str, Path] = {}
    errors = []
    for file in files:
        try:
            flow, warnings = read_flow(file)
        except FlowFileError as error:
            errors.append(str(error))
            continue
        _warn(file, warnings)
        if flow.slug in flows:
            raise UsageError(
                f"{came_from[flow.slug]} and {file} both hold the flow {flow.slug!r}; push one of them"
            )
        flows[flow.slug], came_from[flow.slug] = flow, file
    if errors:
        for text in errors:
            note(text)
        note("nothing was pushed")
        raise typer.Exit(Exit.FAILED)
    return flows


def _row(name: ProjectName, flow: FlowInfo) -> Row:
    texts = (
        f"{name}/{flow.slug}",
        _production(flow),
        one_line(flow.name or UNKNOWN, limit=60),
        local_time(flow.updated_at),
        flow.id,
    )
    return Row([Cell(text) for text in texts])


def _lines(name: ProjectName, flow: FlowHistory) -> list[str]:
    lines = [
        f"{name}/{flow.slug}  {flow.name or ''}".rstrip(),
        f"id {flow.id}  production: {_production(flow)}  capture: {flow.capture or 'as the project says'}",
    ]
    for each in flow.versions:
        title = f"version {each.version}" if each.version else "draft"
        mark = "  in production" if each.version and each.version == flow.production_version else ""
        lines.append(f"{title:<12}  {local_time(each.created_at)}{mark}")
    return lines


def _production(flow: FlowInfo) -> str:
    return "draft only" if flow.production_version is None else f"version {flow.production_version}"


def _plain(name: ProjectName, flow: FlowInfo) -> dict[str, object]:
    about: dict[str, object] = msgspec.to_builtins(flow)
    return {"id": flow.id, "org": name.org, "project": name.project} | about

"""`runglass flow`: check flow files, and put them into the data folder."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runglass.cli import data as data_folder
from runglass.cli.exits import Exit, NotFound, UsageError
from runglass.cli.names import ProjectName, flow_name, project_name
from runglass.cli.options import AsJson, Data, Store
from runglass.cli.table import Cell, Column, Row, print_table
from runglass.cli.terminal import note, one_line, stdout, write_json, write_line
from runglass.cli.words import UNKNOWN, local_time
from runglass.errors import FlowFileError, Problem
from runglass.settings import Settings
from runglass.store.base import FlowRecord

if TYPE_CHECKING:
    from runglass.flow import Flow

app = typer.Typer(no_args_is_help=True, help="Flow files, and the flows of a data folder.")

Files = Annotated[list[Path], typer.Argument(metavar="FILE…")]

COLUMNS = (
    Column("flow"),
    Column("production"),
    Column("name", spare=2),
    Column("changed", spare=1),
    Column("id"),
)


@app.command()
def check(files: Files) -> None:
    """Check flow files: `ok` for a good one, else every mistake as FILE:LINE:COLUMN: message at path."""
    console = stdout()
    bad = 0
    for file in files:
        try:
            read_flow(file)
        except FlowFileError as error:
            bad += 1
            write_line(console, str(error))
        else:
            write_line(console, f"{file}: ok")
    if bad:
        note(f"{bad} of {len(files)} files cannot be used")
        raise typer.Exit(Exit.FAILED)


@app.command()
def push(
    files: Files,
    to: Annotated[str, typer.Option(metavar="ORG/PROJECT", help="The project; made where it is new.")],
    publish: Annotated[
        bool, typer.Option("--publish", help="Also make each the production version.")
    ] = False,
    data: Data = None,
    store: Store = None,
) -> None:
    """Store flow files as drafts. If one has a mistake, none is stored."""
    name = project_name(to)
    asyncio.run(_push(data_folder.data_settings(data, store), name, _read_all(files), publish))


@app.command("list")
def list_flows(
    project: Annotated[str, typer.Argument(metavar="ORG/PROJECT")],
    data: Data = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """The project's flows and which version of each is in production."""
    name = project_name(project)
    flows = asyncio.run(_flows(data_folder.data_settings(data, store), name))
    if as_json:
        write_json([_plain(name, flow) for flow in flows])
    else:
        print_table(COLUMNS, [_row(name, flow) for flow in flows])


@app.command()
def publish(
    flow: Annotated[str, typer.Argument(metavar="ORG/PROJECT/SLUG")], data: Data = None, store: Store = None
) -> None:
    """Make the draft of a flow its production version."""
    name, slug = flow_name(flow)
    asyncio.run(_publish(data_folder.data_settings(data, store), name, slug))


def read_flow(file: Path) -> "Flow":
    """The flow in a file. Raises FlowFileError, also for a file that cannot be read."""
    # Imported here: reading YAML takes a library that most commands can do without.
    from runglass.flow import parse_flow

    try:
        text = file.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FlowFileError([Problem(f"the file cannot be read: {reason}")], file=str(file)) from error
    return parse_flow(text, file=str(file))


def _read_all(files: list[Path]) -> "dict[str, Flow]":
    flows: dict[str, Flow] = {}
    came_from: dict[str, Path] = {}
    errors = []
    for file in files:
        try:
            flow = read_flow(file)
        except FlowFileError as error:
            errors.append(str(error))
            continue
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


async def _push(settings: Settings, name: ProjectName, flows: "dict[str, Flow]", publish: bool) -> None:
    from runglass.runtime import push_flow

    console = stdout()
    async with data_folder.any_store(settings) as store:
        project = await data_folder.make_project(store, name)
        for slug, flow in flows.items():
            record = await push_flow(store, project, flow)
            version = f"version {await store.publish(record.id)}" if publish else "draft"
            write_line(console, f"{name}/{slug}  {version}")


async def _flows(settings: Settings, name: ProjectName) -> list[FlowRecord]:
    async with data_folder.existing_store(settings) as store:
        return await store.flows((await data_folder.existing_project(store, name)).id)


async def _publish(settings: Settings, name: ProjectName, slug: str) -> None:
    async with data_folder.existing_store(settings) as store:
        project = await data_folder.existing_project(store, name)
        flow = await store.find_flow(project.id, slug)
        if flow is None:
            raise NotFound(f"{name} has no flow {slug!r}; `runglass flow list {name}` shows which there are")
        version = await store.publish(flow.id)
    write_line(stdout(), f"{name}/{slug}  version {version}")


def _row(name: ProjectName, flow: FlowRecord) -> Row:
    production = "draft only" if flow.production_version is None else f"version {flow.production_version}"
    texts = (
        f"{name}/{flow.slug}",
        production,
        one_line(flow.name or UNKNOWN, limit=60),
        local_time(flow.updated_at),
        flow.id,
    )
    return Row([Cell(text) for text in texts])


def _plain(name: ProjectName, flow: FlowRecord) -> dict[str, object]:
    return {
        "id": flow.id,
        "org": name.org,
        "project": name.project,
        "slug": flow.slug,
        "name": flow.name,
        "capture": flow.capture,
        "productionVersion": flow.production_version,
        "updatedAt": flow.updated_at,
    }

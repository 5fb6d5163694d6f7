"""`runglass projects`: the rooms that flows, keys and runs live in."""

import asyncio
from typing import Annotated, Literal

import typer

from runglass.cli import data as data_folder
from runglass.cli.names import ProjectName, project_name
from runglass.cli.options import AsJson, Data, Store
from runglass.cli.table import Cell, Column, Row, print_table
from runglass.cli.terminal import note, write_json
from runglass.cli.words import UNKNOWN
from runglass.settings import Settings
from runglass.store.base import Project

app = typer.Typer(no_args_is_help=True, help="Projects of a data folder.")


CaptureChoice = Literal["off", "metadata_only", "redacted", "full", "default"]


@app.command("list")
def list_projects(data: Data = None, store: Store = None, as_json: AsJson = False) -> None:
    """Every project of the data folder."""
    projects = asyncio.run(_projects(data_folder.data_settings(data, store)))
    if as_json:
        write_json([{"org": each.org, "project": each.name, "capture": each.capture} for each in projects])
        return
    rows = [Row((Cell(f"{each.org}/{each.name}"), Cell(each.capture or UNKNOWN))) for each in projects]
    print_table((Column("project"), Column("capture")), rows)


@app.command()
def create(
    project: Annotated[str, typer.Argument(metavar="ORG/PROJECT")],
    capture: Annotated[
        CaptureChoice | None, typer.Option(help="What traces keep of inputs and outputs.")
    ] = None,
    data: Data = None,
    store: Store = None,
) -> None:
    """Make a project, or set the capture mode of one that there is."""
    name = project_name(project)
    asyncio.run(_create(data_folder.data_settings(data, store), name, capture))


async def _projects(settings: Settings) -> list[Project]:
    async with data_folder.existing_store(settings) as store:
        return await store.projects()


async def _create(settings: Settings, name: ProjectName, capture: CaptureChoice | None) -> None:
    async with data_folder.any_store(settings) as store:
        project = await data_folder.make_project(store, name)
        if capture is not None:
            await store.set_capture(project.id, None if capture == "default" else capture)
            note(f"capture of {name} is now {capture}")

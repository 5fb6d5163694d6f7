"""`runglass flow`: check flow files, push them, publish and roll back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from runglass.cli import argument_parsers, options
from runglass.cli.argument_parsers import FlowName, ProjectName
from runglass.cli.backends.flow_backend import read_flow
from runglass.cli.backends.local_store import DataFolder
from runglass.cli.backends.server import Server, flow_address
from runglass.cli.commands.delete_runs import for_each, found_by
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal.formatting import UNKNOWN, counted, local_time
from runglass.cli.terminal.output import note, one_line, stdout, warn, write_json, write_line, write_lines
from runglass.cli.terminal.table import Column, Row, print_table
from runglass.client.api.admin import Management
from runglass.config.settings import Settings
from runglass.errors import FlowFileError, Problem
from runglass.wire.admin_api import FlowInfo
from runglass.wire.run_api import Version

COLUMNS = (
    *map(Column, ("flow", "production")),
    Column("name", spare=2),
    Column("changed", spare=1),
    Column("id"),
)


@click.group("flow", cls=options.CommandGroup)
def group() -> None:
    """Manage flows on a server or, without a key or with --data, in a data folder."""


@group.command()
@options.flow_files
def check(files: tuple[Path, ...]) -> None:
    """Check flow files: print `ok`, or each error as FILE:LINE:COLUMN: message at path.

    Warnings, which leave the flow usable, go to stderr.
    """
    console, settings = stdout(), DataFolder().settings()
    bad = 0
    for file in files:
        try:
            checked, _ = read_flow(file, settings)
        except FlowFileError as error:
            bad += 1
            write_line(console, str(error))
            _warn(file, error.warnings)
        else:
            write_line(console, f"{file}: ok")
            _warn(file, checked.warnings)
    if bad:
        note(f"{bad} of {len(files)} files cannot be used")
        raise click.exceptions.Exit(Exit.FAILED)


@group.command()
@options.flow_files
@click.option(
    "--to", type=argument_parsers.project_name, required=True, metavar="ORG/PROJECT", help="The project."
)
@click.option("--publish", is_flag=True, help="Also publish each as the production version.")
@options.create
@options.flow_server
def push(files: tuple[Path, ...], to: ProjectName, publish: bool, create: bool, server: Server) -> None:
    """Store flow files as drafts. If one has an error, none is stored."""
    flows = _read_all(files, server.folder.settings())
    with server.connect(to, create=create) as client:
        for slug, text in flows.items():
            # The text that was checked: YAML would read the flow's JSON with other characters.
            Management(client).push(*to, slug, text)
            version = f"version {Management(client).publish(*to, slug)}" if publish else "draft"
            write_line(stdout(), f"{to}/{slug}  {version}")


@group.command("list")
@options.optional_project(help="By default that of the key, or the only one of the folder.")
@options.as_json
@options.flow_server
def list_flows(project: ProjectName | None, as_json: bool, server: Server) -> None:
    """List the project's flows and their production versions."""
    with server.connect(project) as client:
        management = Management(client)
        found = management.own_flows() if project is None else management.flows(*project)
    name = ProjectName(found.org, found.project)
    if as_json:
        write_json([_plain(name, flow) for flow in found.flows])
    else:
        rows = [
            Row.of(
                f"{name}/{flow.slug}",
                _production(flow),
                one_line(flow.name or UNKNOWN, limit=60),
                local_time(flow.updated_at),
                flow.id,
            )
            for flow in found.flows
        ]
        print_table(COLUMNS, rows)


@group.command()
@options.flow
@click.option(
    "--version",
    type=argument_parsers.version,
    metavar="VERSION",
    help="Print this version as JSON: production, draft or a number.",
)
@options.as_json
@options.flow_server
def show(flow: FlowName, version: Version | None, as_json: bool, server: Server) -> None:
    """Show a flow and its versions, or with --version the steps of one."""
    with _managed(server, flow) as (management, name, slug):
        found = management.flow(*name, slug)
        if version is not None:
            number = (found.production_version or 0) if version == "production" else version
            write_json(management.flow_version(*name, slug, 0 if number == "draft" else number), indent=2)
            return
    if as_json:
        write_json(_plain(name, found))
        return
    capture = found.capture or "as the project says"
    lines = [
        f"{name}/{found.slug}  {one_line(found.name or '')}".rstrip(),
        f"id {found.id}  production: {_production(found)}  capture: {capture}",
    ]
    for each in found.versions:
        title = f"version {each.version}" if each.version else "draft"
        mark = "  in production" if each.version and each.version == found.production_version else ""
        mark = "  imported with a run, to be read alone" if each.imported else mark
        lines.append(f"{title:<12}  {local_time(each.created_at)}{mark}")
    write_lines(lines)


@group.command()
@options.flow
@options.flow_server
def publish(flow: FlowName, server: Server) -> None:
    """Publish the draft of a flow as its production version."""
    with _managed(server, flow) as (management, name, slug):
        version = management.publish(*name, slug)
    write_line(stdout(), f"{name}/{slug}  version {version}")


@group.command()
@options.flow
@click.argument(
    "version", type=options.WholeNumber(min=1), metavar="VERSION", help="A published version, older or newer."
)
@options.flow_server
def rollback(flow: FlowName, version: int, server: Server) -> None:
    """Put another published version into production; the draft stays."""
    with _managed(server, flow) as (management, name, slug):
        management.set_production(*name, slug, version)
    write_line(stdout(), f"{name}/{slug}  version {version}")


@group.command()
@options.flow
@click.option("--runs", "with_runs", is_flag=True, help="Delete its runs, too; by default they stay.")
@click.option("--yes", is_flag=True, help="Delete; without it, only tell what would go.")
@options.flow_server
def delete(flow: FlowName, with_runs: bool, yes: bool, server: Server) -> None:
    """Delete a flow, so that its slug is free; its runs stay readable, by their ids."""
    with server.connect(flow.project) as client:
        name, slug = flow_address(client, flow)
        flow_id = Management(client).flow(*name, slug).id
        runs = [run.id for run in found_by(client, None, flow_id=flow_id)] if with_runs else []
        if yes:
            for_each(runs, lambda run_id: client.run(run_id).delete(), "deleted")
            Management(client).delete(*name, slug)
    gone = f"{name}/{slug}" + (f" and {counted(len(runs), 'run')}" if with_runs else "")
    write_line(stdout(), f"deleted {gone}" if yes else f"{gone} would be deleted")
    if not yes:
        note("nothing has been deleted: add --yes to delete it")


@contextmanager
def _managed(server: Server, flow: FlowName) -> Iterator[tuple[Management, ProjectName, str]]:
    """What manages the flow, and its project and slug."""
    with server.connect(flow.project) as client:
        yield Management(client), *flow_address(client, flow)


def _warn(file: Path, warnings: list[Problem]) -> None:
    for warning in warnings:
        warn(warning.located(str(file)))


def _read_all(files: Sequence[Path], settings: Settings) -> dict[str, bytes]:
    """The texts of the files by the slugs of their flows. Raises Exit where one has an error."""
    flows: dict[str, bytes] = {}
    errors = 0
    for file in files:
        try:
            checked, text = read_flow(file, settings)
        except FlowFileError as error:
            errors += 1
            note(str(error))
            continue
        _warn(file, checked.warnings)
        if flows.setdefault(checked.flow.slug, text) is not text:
            raise UsageError(
                f"{file} holds the flow {checked.flow.slug!r}, as another one does; push one of them"
            )
    if errors:
        note("nothing was pushed")
        raise click.exceptions.Exit(Exit.FAILED)
    return flows


def _production(flow: FlowInfo) -> str:
    if flow.recorded:
        return "recorded"
    return "draft only" if flow.production_version is None else f"version {flow.production_version}"


def _plain(name: ProjectName, flow: FlowInfo) -> dict[str, object]:
    about: dict[str, object] = msgspec.to_builtins(flow)
    return {"id": flow.id, "org": name.org, "project": name.project} | about

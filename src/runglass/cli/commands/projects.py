"""`runglass projects` and `runglass keys`: the projects of a data folder, what each may do, and API keys."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, get_args

import click
import msgspec

from runglass.cli import options
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.local_store import DataFolder
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.cli.terminal.formatting import UNKNOWN, local_time
from runglass.cli.terminal.output import note, stdout, write_json, write_line
from runglass.cli.terminal.table import Column, Row, print_table
from runglass.log.money import format_usd, parse_usd
from runglass.store.catalog import Catalog
from runglass.store.records import Project, Retention
from runglass.wire.admin_api import ROLES, Actor, KeyInfo
from runglass.wire.run_api import CaptureFailed, CaptureMode

MOST_USD = 1_000_000_000_000
MOST_DECIMALS = 30


class NumberOrDefault(options.Number):
    """A number from 0 on, or `default`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or `default`. Raises BadParameter."""
        return value if value == "default" else super().convert(value, param, ctx)


DAYS = NumberOrDefault(0, 1_000_000)


@click.group("projects", cls=options.CommandGroup)
def group() -> None:
    """Manage the projects of a data folder."""


@group.command("list")
@options.data_folder
@options.as_json
def list_projects(folder: DataFolder, as_json: bool) -> None:
    """List the projects of the data folder."""
    projects = local_store.in_store(folder.settings(), lambda store: store.projects())
    names = ("org", "project", "capture", "captureFailed", "captureSample")
    rows = [
        (each.org, each.name, each.capture, each.capture_failed, each.capture_sample) for each in projects
    ]
    if as_json:
        write_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    columns = tuple(map(Column, ("project", "capture", "if failed", "sample")))
    texts = ([UNKNOWN if value is None else str(value) for value in row] for row in rows)
    print_table(columns, [Row.of(f"{org}/{name}", *kept) for org, name, *kept in texts])


@group.command()
@options.project
@click.option(
    "--capture",
    type=click.Choice([*get_args(CaptureMode), "default"]),
    help="What traces keep of inputs and outputs.",
)
@click.option(
    "--capture-failed",
    type=click.Choice([*get_args(CaptureFailed), "default"]),
    help="How to keep outputs of failed runs under metadata_only.",
)
@click.option(
    "--capture-sample",
    type=NumberOrDefault(0, 1),
    metavar="SHARE",
    help="Share of runs to keep in full, as 0.05; default: the server's setting.",
)
@options.data_folder
def create(project: ProjectName, folder: DataFolder, **given: Any) -> None:
    """Create a project, or set what the traces of an existing one keep."""
    wanted = {field: value for field, value in given.items() if value is not None}

    async def keep(store: Catalog, made: Project) -> None:
        if wanted:
            fields = {field: None if value == "default" else value for field, value in wanted.items()}
            changed = msgspec.structs.replace(made, **fields)
            kept = changed.capture, changed.capture_failed, changed.capture_sample
            await store.set_capture(made.id, *kept, by=local_store.terminal_user())
        for field, value in wanted.items():
            note(f"{field} of {project} is now {value}")

    local_store.in_project(folder.settings(), project, keep, create=True)


@group.command()
@options.project
@click.argument(
    "amount",
    required=False,
    metavar="[USD]",
    help="What it may spend in all, as 5.00; none removes the limit.",
)
@options.data_folder
@options.as_json
def budget(project: ProjectName, amount: str | None, folder: DataFolder, as_json: bool) -> None:
    """Show or set a project's budget, and show what it has spent."""
    usd = None if amount in (None, "none") else parse_usd(amount)
    too_fine = usd is not None and -int(usd.as_tuple().exponent) > MOST_DECIMALS
    if amount not in (None, "none") and (usd is None or usd > MOST_USD or too_fine):
        raise UsageError(
            f"budget {amount!r} cannot be set: write US dollars from 0 to {MOST_USD:,} with at most"
            f" {MOST_DECIMALS} decimals, such as 5.00, or none"
        )

    async def change(store: Catalog, project_id: int, by: Actor) -> None:
        await store.set_budget(project_id, usd, by=by)

    found = _project(folder, project, None if amount is None else change)
    about = {
        "budgetUsd": None if found.budget_usd is None else format_usd(found.budget_usd),
        "spentUsd": format_usd(found.spent_usd),
        "reservedUsd": format_usd(found.reserved_usd),
        "isSpent": found.is_spent,
    }
    limit = "no budget" if found.budget_usd is None else f"budget ${about['budgetUsd']}"
    held = f", ${about['reservedUsd']} held for model calls" if found.reserved_usd else ""
    end = "; nothing more can be run" if found.is_spent else ""
    _write(project, about if as_json else f"{limit}, spent ${about['spentUsd']}{held}{end}")


@group.command()
@options.project
@click.argument(
    "patterns", nargs=-1, metavar="[PATTERN]...", help="Models, as openai:*; default removes the list."
)
@options.data_folder
@options.as_json
def models(project: ProjectName, patterns: tuple[str, ...], folder: DataFolder, as_json: bool) -> None:
    """Show or set the models that a project's flows and callers may name; `echo` is always allowed.

    Without a list a flow may name any model; a `run` key may override with the server's `allowed_models`,
    else with the models of the project's published flows.
    """
    listed = None if patterns == ("default",) else list(patterns)
    for pattern in listed or ():
        provider, _, model = pattern.partition(":")
        if pattern != "*" and not (provider and model):
            raise UsageError(f"{pattern!r} fits no model: write PROVIDER:MODEL, with * for any part")

    async def change(store: Catalog, project_id: int, by: Actor) -> None:
        await store.set_allowed_models(project_id, listed, by=by)

    found = _project(folder, project, change if patterns else None)
    allowed = "no list of models" if found.allowed_models is None else ", ".join(found.allowed_models)
    _write(project, {"allowedModels": found.allowed_models} if as_json else allowed)


@group.command()
@options.project
@click.option("--days", type=DAYS, help="Delete runs so long after their end; default: the server's.")
@click.option("--content-days", type=DAYS, help="Delete their content so long after; default: the server's.")
@options.data_folder
@options.as_json
def retention(project: ProjectName, folder: DataFolder, as_json: bool, **given: Any) -> None:
    """Show or set how long a project keeps runs, and their content (inputs, outputs, …).

    A flow may set its own.
    """
    wanted = {field: None if days == "default" else days for field, days in given.items() if days is not None}

    async def change(store: Catalog, project_id: int, by: Actor) -> None:
        found = await local_store.named_project(store, project)
        before = Retention(found.retention_days, found.content_retention_days)
        await store.set_retention(project_id, before._replace(**wanted), by=by)

    found = _project(folder, project, change if wanted else None)
    times = {"retentionDays": found.retention_days, "contentRetentionDays": found.content_retention_days}
    runs, content = ("as the server says" if days is None else f"{days:g} days" for days in times.values())
    _write(project, times if as_json else f"runs are kept {runs}, their content {content}")


def _write(name: ProjectName, about: dict[str, Any] | str) -> None:
    if isinstance(about, str):
        write_line(stdout(), f"{name}  {about}")
    else:
        write_json({"org": name.org, "project": name.project} | about)


def _project(
    folder: DataFolder,
    name: ProjectName,
    change: Callable[[Catalog, int, Actor], Awaitable[None]] | None,
) -> Project:
    """The project, after a change of it by this user."""

    async def changed(store: Catalog, found: Project) -> Project:
        if change is not None:
            await change(store, found.id, local_store.terminal_user())
        return await local_store.named_project(store, name)

    return local_store.in_project(folder.settings(), name, changed)


KEY_COLUMNS = (Column("id", right=True), *map(Column, ("key", "role", "created", "revoked")))


@click.group("keys", cls=options.CommandGroup)
def keys_group() -> None:
    """Manage the API keys of a data folder, also while its server runs."""


@keys_group.command("create")
@options.project
@click.option("--role", type=click.Choice(ROLES), default="admin", help="What the key may do.")
@options.create
@options.data_folder
def create_key(project: ProjectName, role: str, create: bool, folder: DataFolder) -> None:
    """Create a key and print it on stdout."""
    settings = folder.settings()

    make = partial(local_store.create_key, role=role, most=settings.max_keys_per_project)
    key, _ = local_store.in_project(settings, project, make, create=create)
    write_line(stdout(), key)


@keys_group.command("list")
@options.project
@options.data_folder
@options.as_json
def list_keys(project: ProjectName, folder: DataFolder, as_json: bool) -> None:
    """List the project's keys by their prefixes, revoked ones too."""
    keys = local_store.in_project(folder.settings(), project, lambda store, found: store.keys(found.id))
    if as_json:
        write_json(msgspec.convert(keys, list[KeyInfo], from_attributes=True))
        return
    rows = []
    for key in keys:
        cells = (str(key.id), f"{key.hint}…", key.role, *map(local_time, (key.created_at, key.revoked_at)))
        rows.append(Row.of(*cells, style="" if key.revoked_at is None else "dim"))
    print_table(KEY_COLUMNS, rows)


@keys_group.command()
@options.project
@click.argument("key_id", type=options.WholeNumber(), metavar="ID", help="The id that `keys list` shows.")
@options.data_folder
def revoke(project: ProjectName, key_id: int, folder: DataFolder) -> None:
    """Revoke a key immediately; responses in progress for it are aborted."""

    async def revoke_in(store: Catalog, found: Project) -> str:
        key = next((each for each in await store.keys(found.id) if each.id == key_id), None)
        if key is None:
            raise NotFound(
                f"{project} has no key {key_id}; `runglass keys list {project}` shows which there are"
            )
        await store.revoke_key(found.id, key_id, by=local_store.terminal_user())
        return key.hint

    hint = local_store.in_project(folder.settings(), project, revoke_in)
    note(f"key {key_id} ({hint}…) of {project} is revoked")

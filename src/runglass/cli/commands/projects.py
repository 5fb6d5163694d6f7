"""`runglass projects` and `runglass keys`: the projects of a data folder, what each may do, and API keys."""

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
from runglass.config.settings import Settings
from runglass.log.money import format_usd, parse_usd
from runglass.store.protocols.catalog import Catalog
from runglass.store.records import Project, Retention
from runglass.wire.admin_api import ROLES, KeyInfo
from runglass.wire.run_api import CaptureFailed, CaptureMode

MOST_USD = 1_000_000_000_000
MOST_DECIMALS = 30
MOST_DAYS = 1_000_000


@click.group("projects", cls=options.CommandGroup)
def group() -> None:
    """Manage the projects of a data folder."""


@group.command("list")
@options.data_folder
@options.as_json
def list_projects(folder: DataFolder, as_json: bool) -> None:
    """List the projects of the data folder."""
    projects = local_store.in_store(folder.settings(), lambda store: store.projects())
    if as_json:
        write_json(
            [
                {"org": each.org, "project": each.name, "capture": each.capture}
                | {"captureFailed": each.capture_failed, "captureSample": each.capture_sample}
                for each in projects
            ]
        )
        return
    rows = []
    for each in projects:
        kept = (each.capture, each.capture_failed, each.capture_sample)
        texts = (UNKNOWN if value is None else str(value) for value in kept)
        rows.append(Row.of(f"{each.org}/{each.name}", *texts))
    print_table((Column("project"), Column("capture"), Column("if failed"), Column("sample")), rows)


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
    metavar="SHARE",
    help="Share of runs to keep in full, as 0.05; default: the server's setting.",
)
@options.data_folder
def create(
    project: ProjectName,
    capture: str | None,
    capture_failed: str | None,
    capture_sample: str | None,
    folder: DataFolder,
) -> None:
    """Create a project, or set what the traces of an existing one keep."""
    given = {"capture": capture, "capture_failed": capture_failed, "capture_sample": capture_sample}
    wanted: dict[str, Any] = {field: text for field, text in given.items() if text is not None}
    if capture_sample not in (None, "default"):
        expected = "no share of runs: write a number from 0 to 1, such as 0.05"
        wanted["capture_sample"] = _number(capture_sample, 1, expected)

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
    settings = folder.settings()
    if amount is not None:
        usd = None if amount == "none" else parse_usd(amount)
        too_fine = usd is not None and -int(usd.as_tuple().exponent) > MOST_DECIMALS
        if amount != "none" and (usd is None or usd > MOST_USD or too_fine):
            raise UsageError(
                f"budget {amount!r} cannot be set: write US dollars from 0 to {MOST_USD:,} with at most"
                f" {MOST_DECIMALS} decimals, such as 5.00, or none"
            )
        by = local_store.terminal_user()
        local_store.in_project(settings, project, lambda store, found: store.set_budget(found.id, usd, by=by))
    found = _project(settings, project)
    budget = None if found.budget_usd is None else format_usd(found.budget_usd)
    spent, reserved = format_usd(found.spent_usd), format_usd(found.reserved_usd)
    limit = "no budget" if budget is None else f"budget ${budget}"
    end = "; nothing more can be run" if found.is_spent else ""
    held = f", ${reserved} held for model calls" if found.reserved_usd else ""
    about = {"budgetUsd": budget, "spentUsd": spent, "reservedUsd": reserved, "isSpent": found.is_spent}
    _write(project, about if as_json else f"{limit}, spent ${spent}{held}{end}")


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
    settings = folder.settings()
    if patterns:
        listed = None if patterns == ("default",) else list(patterns)
        for pattern in listed or ():
            provider, _, model = pattern.partition(":")
            if pattern != "*" and not (provider and model):
                raise UsageError(f"{pattern!r} fits no model: write PROVIDER:MODEL, with * for any part")
        by = local_store.terminal_user()
        local_store.in_project(
            settings, project, lambda store, found: store.set_allowed_models(found.id, listed, by=by)
        )
    found = _project(settings, project)
    allowed = "no list of models" if found.allowed_models is None else ", ".join(found.allowed_models)
    _write(project, {"allowedModels": found.allowed_models} if as_json else allowed)


@group.command()
@options.project
@click.option("--days", metavar="DAYS", help="Delete runs so long after their end; default: the server's.")
@click.option(
    "--content-days", metavar="DAYS", help="Delete their content so long after; default: the server's."
)
@options.data_folder
@options.as_json
def retention(
    project: ProjectName, days: str | None, content_days: str | None, folder: DataFolder, as_json: bool
) -> None:
    """Show or set how long a project keeps runs, and their content (inputs, outputs, …).

    A flow may set its own.
    """
    settings = folder.settings()
    changes = {"days": days, "content_days": content_days}
    expected = f"no number of days: write one from 0 to {MOST_DAYS:,}"
    wanted = {
        field: _number(text, MOST_DAYS, expected) for field, text in changes.items() if text is not None
    }

    async def keep(store: Catalog, found: Project) -> None:
        before = Retention(found.retention_days, found.content_retention_days)
        await store.set_retention(found.id, before._replace(**wanted), by=local_store.terminal_user())

    if wanted:
        local_store.in_project(settings, project, keep)
    found = _project(settings, project)
    times = {"retentionDays": found.retention_days, "contentRetentionDays": found.content_retention_days}
    runs, content = ("as the server says" if days is None else f"{days:g} days" for days in times.values())
    _write(project, times if as_json else f"runs are kept {runs}, their content {content}")


def _write(name: ProjectName, about: dict[str, Any] | str) -> None:
    if isinstance(about, str):
        write_line(stdout(), f"{name}  {about}")
    else:
        write_json({"org": name.org, "project": name.project} | about)


def _project(settings: Settings, name: ProjectName) -> Project:
    return local_store.in_store(settings, lambda store: local_store.named_project(store, name))


def _number(text: str, most: float, expected: str) -> float | None:
    """A number, whole or not; None for `default`. Raises UsageError, which says what it should be."""
    if text == "default":
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise UsageError(f"{text!r} is {expected}, or default")
    return number


KEY_COLUMNS = (
    Column("id", right=True),
    Column("key"),
    Column("role"),
    Column("created"),
    Column("revoked"),
)


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

    async def make(store: Catalog, found: Project) -> str:
        return await local_store.create_key(store, found, role, most=settings.max_keys_per_project)

    write_line(stdout(), local_store.in_project(settings, project, make, create=create))


@keys_group.command("list")
@options.project
@options.data_folder
@options.as_json
def list_keys(project: ProjectName, folder: DataFolder, as_json: bool) -> None:
    """List the project's keys by their prefixes, revoked ones too."""
    keys = local_store.in_project(folder.settings(), project, lambda store, found: store.keys(found.id))
    if as_json:
        write_json(msgspec.convert(keys, list[KeyInfo], from_attributes=True))
    else:
        rows = []
        for key in keys:
            style = "" if key.revoked_at is None else "dim"
            revoked = UNKNOWN if key.revoked_at is None else local_time(key.revoked_at)
            cells = (str(key.id), f"{key.hint}…", key.role, local_time(key.created_at), revoked)
            rows.append(Row.of(*cells, style=style))
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

"""`runglass runs delete`: tells which runs would go, and with `--yes` deletes them for good."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, get_args

import click

from runglass.cli import argument_parsers, options
from runglass.cli.backends.server import MOST_PER_PAGE, Server, named_run
from runglass.cli.backends.server import flow_id as named_flow_id
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import note, stdout, write_json, write_line
from runglass.errors import APIError, FlowNotFoundError, RunglassError
from runglass.log.trace import TERMINAL, RunStatus

if TYPE_CHECKING:
    from runglass.client import Run


class DatedRun(NamedTuple):
    """A run, and when it ended, or else began."""

    id: str
    at: str | None


@click.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID]...", help="As `runs show` takes them.")
@click.option("--flow", metavar="FLOW", help="Runs of this flow: its id, SLUG or ORG/PROJECT/SLUG.")
@click.option(
    "--status",
    type=click.Choice(get_args(RunStatus)),
    help="Runs with this status; by default those that have ended.",
)
@click.option(
    "--before",
    type=argument_parsers.since,
    metavar="TIME",
    help="Runs that ended before: 2026-01-31, or with a time.",
)
@click.option(
    "--older-than",
    type=argument_parsers.since,
    metavar="AGE",
    help="Runs that ended longer ago than 30d, or 90m, 12h, 2w.",
)
@click.option("--yes", is_flag=True, help="Delete; without it, only list what would be deleted.")
@options.as_json
@options.server
def delete(
    run_ids: tuple[str, ...],
    flow: str | None,
    status: RunStatus | None,
    before: datetime | None,
    older_than: datetime | None,
    yes: bool,
    as_json: bool,
    server: Server,
) -> None:
    """Delete runs permanently, by id or by options. Without --yes, only list what would be deleted."""
    limit = time_limit(before, older_than)
    by_query = flow is not None or status is not None or limit is not None
    if bool(run_ids) == by_query:
        raise UsageError(
            "say which runs: either ids, or a query with --flow, --status, --before or --older-than"
        )
    with server.connect() as client:
        if run_ids:
            runs = [named_run(client, run_id) for run_id in dict.fromkeys(run_ids)]
            found = [DatedRun(run.execution_id, None) if yes else _dated(run) for run in runs]
        else:
            found = []
            flow_id = None if flow is None else named_flow_id(client, flow)
            for each in client.runs(flow_id=flow_id, status=status, limit=MOST_PER_PAGE):
                at = each.completed_at or each.started_at
                then = formatting.moment(at)
                is_due = limit is None or (then is not None and then < limit)
                # Without a status only those that have ended.
                if is_due and (status is not None or each.status in TERMINAL):
                    found.append(DatedRun(each.id, at))
        if not yes:
            _print_preview(found, as_json=as_json)
            return
        deleted: list[str] = []
        missing: list[str] = []
        for run_id, _ in found:
            try:
                client.run(run_id).delete()
            except FlowNotFoundError:
                missing.append(run_id)
            except RunglassError:
                note(f"deleted {len(deleted):,} of {formatting.counted(len(found), 'run')}, then:")
                raise
            else:
                deleted.append(run_id)
    if as_json:
        write_json({"deleted": deleted, "missing": missing})
    else:
        write_line(stdout(), f"deleted {formatting.counted(len(deleted), 'run')}")
    if run_ids and missing:
        raise NotFound(f"there is no run {', '.join(map(repr, missing))}")


def _dated(run: "Run") -> DatedRun:
    """The run, with its time if it has begun and its rows can be read. Raises FlowNotFoundError."""
    try:
        summary = run.summary()
    except APIError as error:
        # A run that cannot be read is there to be deleted all the same.
        if error.code != "INTERNAL_ERROR":
            raise
        return DatedRun(run.execution_id, None)
    return DatedRun(run.execution_id, summary.completed_at or summary.started_at)


def _print_preview(found: Sequence[DatedRun], *, as_json: bool) -> None:
    timed = sorted((each for each in found if each.at), key=lambda each: each.at or "")
    if as_json:
        ends = {"oldest": timed[0], "newest": timed[-1]} if timed else {"oldest": None, "newest": None}
        shown = {name: each and each._asdict() for name, each in ends.items()}
        write_json({"count": len(found), **shown})
    else:
        console = stdout()
        write_line(console, f"{formatting.counted(len(found), 'run')} would be deleted")
        for name, each in zip(("oldest", "newest"), (timed[:1], timed[-1:]), strict=True):
            for run in each:
                write_line(console, f"{name}  {run.id}  {formatting.local_time(run.at)}")
    if found:
        note("nothing has been deleted: add --yes to delete for good")


def time_limit(before: datetime | None, older_than: datetime | None) -> datetime | None:
    """The time before which runs must have ended, by one of two options. Raises UsageError for both."""
    if before is not None and older_than is not None:
        raise UsageError("--before and --older-than both say how old the runs are: give one of them")
    limit = older_than if before is None else before
    return None if limit is None else limit.astimezone(UTC)

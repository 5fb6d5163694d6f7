"""`runglass runs delete` and `runs cancel`: of a query they tell first which runs, and act with `--yes`."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, get_args

import click

from runglass.cli import argument_parsers, options
from runglass.cli.backends.server import MOST_PER_PAGE, Server, named_run, names_run
from runglass.cli.backends.server import flow_id as named_flow_id
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import note, stdout, write_json, write_line
from runglass.errors import APIError, FlowNotFoundError, RequestError, RunglassError
from runglass.log.trace import TERMINAL, RunStatus, RunSummary

if TYPE_CHECKING:
    from runglass.client import Client, Run


CAN_END = "kind:executed status:pending,running,paused"
"""The runs that can be cancelled."""


class DatedRun(NamedTuple):
    """A run, and when it ended, or else began."""

    id: str
    at: str | None


@click.command()
@click.argument(
    "runs",
    nargs=-1,
    metavar="[RUN_ID|QUERY]...",
    help="Runs, as `runs show` takes them, or one query, as `runs list` takes it.",
)
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
    runs: tuple[str, ...],
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
    query = runs[0] if len(runs) == 1 and not names_run(runs[0]) else None
    has_options = flow is not None or status is not None or limit is not None
    by_name = bool(runs) and query is None
    if by_name == (has_options or query is not None):
        raise UsageError(
            "say which runs: either ids, or a query, in words or by --flow, --status, --before, --older-than"
        )
    with server.connect() as client:
        if by_name:
            named = [named_run(client, run_id) for run_id in dict.fromkeys(runs)]
            found = [DatedRun(run.execution_id, None) if yes else _dated(run) for run in named]
        else:
            found = []
            names_status = status is not None or re.search(r"(?<!\S)status:", query or "") is not None
            flow_id = None if flow is None else named_flow_id(client, flow)
            for each in found_by(client, query, flow_id=flow_id, status=status):
                at = each.completed_at or each.started_at
                then = formatting.moment(at)
                is_due = limit is None or (then is not None and then < limit)
                # Without a status only those that have ended.
                if is_due and (names_status or each.status in TERMINAL):
                    found.append(DatedRun(each.id, at))
        if not yes:
            _print_preview(found, as_json=as_json)
            return
        deleted, missing = for_each(
            [run_id for run_id, _ in found], lambda run_id: client.run(run_id).delete(), "deleted"
        )
    if as_json:
        write_json({"deleted": deleted, "missing": missing})
    else:
        write_line(stdout(), f"deleted {formatting.counted(len(deleted), 'run')}")
    if by_name and missing:
        raise NotFound(f"there is no run {', '.join(map(repr, missing))}")


@click.command()
@click.argument(
    "runs",
    metavar="RUN_ID|QUERY",
    help="A run, as `runs show` takes it, or a query, as `runs list` takes it.",
)
@click.option("--yes", is_flag=True, help="Cancel the runs of a query; without it, only tell how many.")
@options.server
def cancel(runs: str, yes: bool, server: Server) -> None:
    """End a run that has not ended, or with --yes all that a query finds; their traces so far stay."""
    with server.connect() as client:
        if names_run(runs):
            run = named_run(client, runs)
            run.cancel()
            write_line(stdout(), f"run {run.execution_id} is cancelled")
            return
        going = [run.id for run in found_by(client, f"{runs} {CAN_END}")]
        if not yes:
            write_line(stdout(), f"{formatting.counted(len(going), 'run')} would be cancelled")
            if going:
                note("nothing has been cancelled: add --yes")
            return
        cancelled, ended = for_each(going, lambda run_id: client.run(run_id).cancel(), "cancelled")
    also = f"; {formatting.counted(len(ended), 'run')} had ended before" if ended else ""
    write_line(stdout(), f"cancelled {formatting.counted(len(cancelled), 'run')}{also}")


def found_by(
    client: "Client", query: str | None, *, flow_id: str | None = None, status: RunStatus | None = None
) -> Iterator[RunSummary]:
    """The runs of a query, newest first. Raises UsageError for one without words."""
    if query is not None and not query.removesuffix(CAN_END).strip():
        # The usual reason is a variable of the shell that has no value.
        raise UsageError("the query is empty: say which runs, such as status:failed or flow:SLUG")
    return iter(client.runs(query=query, flow_id=flow_id, status=status, limit=MOST_PER_PAGE))


def for_each(runs: Sequence[str], act: Callable[[str], object], done: str) -> tuple[list[str], list[str]]:
    """Does it to each run. Returns those it was done to, and those that were gone or had ended meanwhile."""
    changed: list[str] = []
    passed: list[str] = []
    for run_id in runs:
        try:
            act(run_id)
        except (FlowNotFoundError, RequestError):
            passed.append(run_id)
        except RunglassError:
            note(f"{done} {len(changed):,} of {formatting.counted(len(runs), 'run')}, then:")
            raise
        else:
            changed.append(run_id)
    return changed, passed


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
        note("nothing was deleted: add --yes to delete permanently")


def time_limit(before: datetime | None, older_than: datetime | None) -> datetime | None:
    """The time before which runs must have ended, by one of two options. Raises UsageError for both."""
    if before is not None and older_than is not None:
        raise UsageError("--before and --older-than both say how old the runs are: give one of them")
    limit = older_than if before is None else before
    return None if limit is None else limit.astimezone(UTC)

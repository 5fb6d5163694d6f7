"""`runglass runs delete` and `runs cancel`: of a query they tell first which runs, and act with `--yes`."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter

import click

from runglass.cli import argument_parsers, options
from runglass.cli.backends.server import MOST_PER_PAGE, Server, named_run, names_run
from runglass.cli.backends.server import flow_id as named_flow_id
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import note, stdout, write_json, write_line
from runglass.client import Client, Run
from runglass.errors import APIError, FlowNotFoundError, RequestError, RunglassError
from runglass.log.trace import TERMINAL, RunStatus, RunSummary

CAN_END = "kind:executed status:pending,running,paused"
"""The runs that can be cancelled."""


@click.command()
@click.argument(
    "runs",
    nargs=-1,
    metavar="[RUN_ID|QUERY]...",
    help="Runs, as `runs show` takes them, or one query, as `runs list` takes it.",
)
@options.of_flow
@options.of_status
@click.option(
    "--before",
    "--older-than",
    "limit",
    type=argument_parsers.since,
    metavar="TIME",
    help="Runs that ended before 2026-01-31, with or without a time, or longer ago than 30d, 90m, 12h or 2w.",
)
@click.option("--yes", is_flag=True, help="Delete; without it, only list what would be deleted.")
@options.as_json
@options.server
def delete(
    runs: tuple[str, ...],
    flow: str | None,
    status: RunStatus | None,
    limit: datetime | None,
    yes: bool,
    as_json: bool,
    server: Server,
) -> None:
    """Delete runs permanently, by id, query or options. Without --yes, only list what would be deleted.

    Options and queries find runs that have ended, unless they name a status.
    """
    query = runs[0] if len(runs) == 1 and not names_run(runs[0]) else None
    by_name = bool(runs) and query is None
    if by_name == any(each is not None for each in (query, flow, status, limit)):
        raise UsageError(
            "say which runs: either ids, or a query, in words or by --flow, --status, --before, --older-than"
        )
    with server.connect() as client:
        if by_name:
            named = [named_run(client, run_id) for run_id in dict.fromkeys(runs)]
            found = {run.execution_id: None if yes else _time_of_named(run) for run in named}
        else:
            found = {}
            names_status = status is not None or re.search(r"(?<!\S)status:", query or "") is not None
            flow_id = None if flow is None else named_flow_id(client, flow)
            for each in found_by(client, query, flow_id=flow_id, status=status):
                then = formatting.moment(_time_of(each))
                is_due = limit is None or (then is not None and then < limit)
                # Without a status only those that have ended.
                if is_due and (names_status or each.status in TERMINAL):
                    found[each.id] = _time_of(each)
        if not yes:
            _print_preview(found, as_json=as_json)
            return
        deleted, missing = for_each(list(found), lambda run_id: client.run(run_id).delete(), "deleted")
    if as_json:
        write_json({"deleted": deleted, "missing": missing})
    else:
        write_line(stdout(), f"deleted {formatting.counted(len(deleted), 'run')}")
    if by_name and missing:
        raise NotFound(f"there is no run {', '.join(map(repr, missing))}")


@click.command()
@options.run_or_query
@click.option("--yes", is_flag=True, help="Cancel the runs of a query; without it, only say how many.")
@options.server
def cancel(runs: str, yes: bool, server: Server) -> None:
    """End a run that has not ended, or with --yes all that a query finds; their traces so far stay."""
    with server.connect() as client:
        if names_run(runs):
            run = named_run(client, runs)
            run.cancel()
            write_line(stdout(), f"run {run.execution_id} is cancelled")
            return
        going = [run.id for run in found_by(client, runs, CAN_END)]
        if not yes:
            tell_what_would_be(len(going), "cancelled")
            return
        cancelled, ended = for_each(going, lambda run_id: client.run(run_id).cancel(), "cancelled")
    also = f"; {formatting.counted(len(ended), 'run')} had ended before" if ended else ""
    write_line(stdout(), f"cancelled {formatting.counted(len(cancelled), 'run')}{also}")


def found_by(
    client: Client,
    query: str | None,
    and_also: str = "",
    *,
    flow_id: str | None = None,
    status: RunStatus | None = None,
) -> Iterator[RunSummary]:
    """The runs of a query, newest first. Raises UsageError for one without words."""
    if query is not None and not query.strip():
        # The usual reason is a variable of the shell that has no value.
        raise UsageError(
            "the query is empty: say which runs, such as status:failed or flow:SLUG;"
            " `status:completed,failed,cancelled` are all that have ended"
        )
    query = None if query is None else f"{query} {and_also}"
    return iter(client.runs(query=query, flow_id=flow_id, status=status, limit=MOST_PER_PAGE))


def tell_what_would_be(number: int, done: str, also: str = "") -> None:
    """Says how many runs a command would change."""
    write_line(stdout(), f"{formatting.counted(number, 'run')} would be {done}{also}")
    if number:
        note(f"nothing has been {done}: add --yes")


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


def _time_of(run: RunSummary) -> str | None:
    """When the run ended, or else began."""
    return run.completed_at or run.started_at


def _time_of_named(run: Run) -> str | None:
    """The same, if its rows can be read. Raises FlowNotFoundError."""
    try:
        return _time_of(run.summary())
    except APIError as error:
        # A run that cannot be read is there to be deleted all the same.
        if error.code != "INTERNAL_ERROR":
            raise
        return None


def _print_preview(found: Mapping[str, str | None], *, as_json: bool) -> None:
    timed = sorted(((at, run_id) for run_id, at in found.items() if at), key=itemgetter(0))
    ends = {"oldest": timed[:1], "newest": timed[-1:]}
    if as_json:
        shown = {name: {"id": each[0][1], "at": each[0][0]} if each else None for name, each in ends.items()}
        write_json({"count": len(found), **shown})
        return
    lines = [
        f"\n{name}  {run_id}  {formatting.local_time(at)}"
        for name, each in ends.items()
        for at, run_id in each
    ]
    tell_what_would_be(len(found), "deleted", "".join(lines))

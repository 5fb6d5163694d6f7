"""`runglass runs delete` and `runs cancel`: of a query they tell first which runs, and act with `--yes`."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from runglass.cli import options
from runglass.cli.backends.server import MOST_PER_PAGE, Server, named_run, names_run
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import note, stdout, write_json, write_line
from runglass.errors import APIError, FlowNotFoundError, RequestError, RunglassError
from runglass.log.trace import TERMINAL, RunSummary

if TYPE_CHECKING:
    from runglass.client import Client, Run


CAN_END = "kind:executed status:pending,running,paused"
"""The runs that can be cancelled."""
HAVE_ENDED = f"status:{','.join(sorted(TERMINAL))}"


class DatedRun(NamedTuple):
    """A run, and when it ended, or else began."""

    id: str
    at: str | None


@click.command()
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    metavar="RUN_ID...|QUERY",
    help="Runs, as `runs show` takes them, or one query, as `runs list` takes it.",
)
@click.option("--yes", is_flag=True, help="Delete; without it, only list what would be deleted.")
@options.as_json
@options.server
def delete(runs: tuple[str, ...], yes: bool, as_json: bool, server: Server) -> None:
    """Delete runs permanently, by id or query. Without --yes, only list what would be deleted.

    A query finds runs that have ended, unless it names a status.
    """
    query = runs[0] if len(runs) == 1 and not names_run(runs[0]) else None
    with server.connect() as client:
        if query is None:
            named = [named_run(client, run_id) for run_id in dict.fromkeys(runs)]
            found = [DatedRun(run.execution_id, None) if yes else _dated(run) for run in named]
        else:
            names_status = re.search(r"(?<!\S)status:", query) is not None
            matching = found_by(client, query, "" if names_status else HAVE_ENDED)
            found = [DatedRun(each.id, each.completed_at or each.started_at) for each in matching]
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
    if query is None and missing:
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


def found_by(client: "Client", query: str, and_also: str = "") -> Iterator[RunSummary]:
    """The runs of a query, newest first. Raises UsageError for one without words."""
    if not query.strip():
        # The usual reason is a variable of the shell that has no value.
        raise UsageError(
            "the query is empty: say which runs, such as status:failed or flow:SLUG;"
            " `status:completed,failed,cancelled` are all that have ended"
        )
    return iter(client.runs(query=f"{query} {and_also}", limit=MOST_PER_PAGE))


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
    ends = {"oldest": timed[:1], "newest": timed[-1:]}
    if as_json:
        shown = {name: each[0]._asdict() if each else None for name, each in ends.items()}
        write_json({"count": len(found), **shown})
        return
    lines = [
        f"\n{name}  {run.id}  {formatting.local_time(run.at)}" for name, each in ends.items() for run in each
    ]
    tell_what_would_be(len(found), "deleted", "".join(lines))

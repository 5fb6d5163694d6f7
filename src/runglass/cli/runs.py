"""`runglass runs`: look at runs of a server, and delete them."""

import re
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from runglass.cli import names, words
from runglass.cli.event_lines import EventLines
from runglass.cli.exits import Exit, NotFound, UsageError
from runglass.cli.options import ApiKey, AsJson, BaseUrl, connect
from runglass.cli.run_query import MOST_PER_PAGE, Found, find_runs, time_limit
from runglass.cli.step_view import attempt_lines
from runglass.cli.table import Cell, Column, Row, print_table
from runglass.cli.terminal import note, stdout, width_of, write_json, write_line
from runglass.cli.trace_view import step_lines, summary_lines
from runglass.errors import FlowNotFoundError, RunglassError
from runglass.events import FlowCompleted, StreamEvent, UnknownEvent, is_terminal
from runglass.execution import RunPage
from runglass.trace import RunStatus, RunSummary, StepAttempts

if TYPE_CHECKING:
    from runglass.client import Client, Run

app = typer.Typer(
    no_args_is_help=True, help="Runs of a server: list them, read one, follow one, delete some."
)

RunId = Annotated[str, typer.Argument(metavar="RUN_ID")]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)

COLUMNS = (
    Column("run"),
    Column("status"),
    Column("started"),
    Column("duration", right=True),
    Column("trigger", spare=2),
    Column("steps", right=True, spare=1),
    Column("flow", spare=3),
)


@app.command("list")
def list_runs(
    flow: Annotated[
        str | None,
        typer.Option(metavar="FLOW", help="Only runs of this flow: its id, SLUG or ORG/PROJECT/SLUG."),
    ] = None,
    status: Annotated[RunStatus | None, typer.Option(help="Only runs with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """The newest runs that the key may see, newest first."""
    with connect(base_url, api_key) as client:
        page = _newest(client, None if flow is None else _flow_id(client, flow), status, limit)
    if as_json:
        write_json(page)
    else:
        print_table(COLUMNS, [_row(run) for run in page.runs])


@app.command()
def show(run_id: RunId, as_json: AsJson = False, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """What a run came to, and its steps: the latest attempt of each, in each iteration."""
    with connect(base_url, api_key) as client:
        trace = _run(client, run_id).trace()
    if as_json:
        write_json(trace)
        return
    console = stdout()
    for line in summary_lines(trace):
        write_line(console, line)
    write_line(console)
    for line in step_lines(trace, width=width_of(console)):
        write_line(console, line)


@app.command()
def tail(run_id: RunId, as_json: AsJson = False, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """Every event of a run from the first, then live until it ends. Exit code 1 if it does not complete."""
    console = stdout()
    lines = EventLines()
    last: StreamEvent | None = None
    with connect(base_url, api_key) as client:
        for last in _run(client, run_id).live_trace():
            if as_json:
                write_json(last.data if isinstance(last, UnknownEvent) else last)
            else:
                write_line(console, lines.line(last))
    if last is not None and is_terminal(last) and not isinstance(last, FlowCompleted):
        raise typer.Exit(Exit.FAILED)


@app.command()
def step(
    run_id: RunId,
    step_id: Annotated[str, typer.Argument(metavar="STEP")],
    attempt: Annotated[str, typer.Option(help="latest, all or a number.")] = "latest",
    loop: Annotated[
        str | None,
        typer.Option(metavar="N", help="The iteration: 3, or 0.3 in nested loops, outer to inner."),
    ] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """One step of a run and all that was kept of it; in a loop by default its newest iteration."""
    number = names.attempt(attempt)
    loop_path = None if loop is None else names.loop_path(loop)
    with connect(base_url, api_key) as client:
        run = _run(client, run_id)
        try:
            found = run.step_trace(step_id, attempt=number, loop_index=loop_path)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if as_json:
        write_json(found)
        return
    console = stdout()
    for place, each in enumerate(found.attempts if isinstance(found, StepAttempts) else [found]):
        if place:
            write_line(console)
        for line in attempt_lines(each):
            write_line(console, line)


@app.command()
def delete(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN_ID]...")] = None,
    flow: Annotated[
        str | None,
        typer.Option(metavar="FLOW", help="Runs of this flow: its id, SLUG or ORG/PROJECT/SLUG."),
    ] = None,
    status: Annotated[
        RunStatus | None, typer.Option(help="Runs with this status; by default those that have ended.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Runs that ended before: 2026-01-31, or with a time.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Runs that ended longer ago than 30d, or 90m, 12h, 2w.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only tell what would go.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Delete runs for good, by id or by query. Without --yes it tells what would go, and deletes nothing."""
    limit = time_limit(before, older_than)
    by_query = flow is not None or status is not None or limit is not None
    if bool(run_ids) == by_query:
        raise UsageError(
            "say which runs: either ids, or a query with --flow, --status, --before or --older-than"
        )
    with connect(base_url, api_key) as client:
        if run_ids:
            runs = [_run(client, run_id) for run_id in dict.fromkeys(run_ids)]
            # To delete one it need not be looked at, which has to wait for one that has not begun.
            found = [Found(run.execution_id, None if yes else _began(run)) for run in runs]
        else:
            flow_id = None if flow is None else _flow_id(client, flow)
            found = list(find_runs(client, flow_id=flow_id, status=status, before=limit))
        if not yes:
            _tell_what_would_go(found, as_json=as_json)
            return
        deleted, missing = _delete_all(client, [each.id for each in found])
    if as_json:
        write_json({"deleted": deleted, "missing": missing})
    else:
        write_line(stdout(), f"deleted {words.counted(len(deleted), 'run')}")
    if run_ids and missing:
        raise NotFound(f"there is no run {', '.join(map(repr, missing))}")


def _began(run: "Run") -> str:
    """When the run began. Raises FlowNotFoundError."""
    with closing(run.live_trace()) as events:
        return next(events).at


def _tell_what_would_go(found: Sequence[Found], *, as_json: bool) -> None:
    timed = sorted((each for each in found if each.at), key=lambda each: each.at or "")
    if as_json:
        ends = {"oldest": timed[0], "newest": timed[-1]} if timed else {"oldest": None, "newest": None}
        shown = {name: each and each._asdict() for name, each in ends.items()}
        write_json({"count": len(found), **shown})
    else:
        console = stdout()
        write_line(console, f"{words.counted(len(found), 'run')} would be deleted")
        for name, each in zip(("oldest", "newest"), (timed[:1], timed[-1:]), strict=True):
            for run in each:
                write_line(console, f"{name}  {run.id}  {words.local_time(run.at)}")
    if found:
        note("nothing has been deleted: add --yes to delete for good")


def _delete_all(client: "Client", run_ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """Deletes each; returns those that were there, and those that were not. An error says how far it came."""
    deleted: list[str] = []
    missing: list[str] = []
    for run_id in run_ids:
        try:
            client.run(run_id).delete()
        except FlowNotFoundError:
            missing.append(run_id)
        except RunglassError:
            note(f"deleted {len(deleted):,} of {words.counted(len(run_ids), 'run')}, then:")
            raise
        else:
            deleted.append(run_id)
    return deleted, missing


def _run(client: "Client", run_id: str) -> "Run":
    try:
        return client.run(run_id)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _flow_id(client: "Client", flow: str) -> str:
    """The id of the flow that is named by id, SLUG or ORG/PROJECT/SLUG. Raises NotFound."""
    if _UUID.fullmatch(flow):
        return flow
    from runglass.client.management import Management

    management = Management(client)
    if "/" in flow:
        name, slug = names.flow_name(flow)
        listed = management.flows(name.org, name.project)
    else:
        slug, listed = flow, management.own_flows()
    for each in listed.flows:
        if each.slug == slug:
            return each.id
    raise NotFound(
        f"{listed.org}/{listed.project} has no flow {slug!r};"
        f" `runglass flow list {listed.org}/{listed.project}` shows which there are"
    )


def _newest(client: "Client", flow_id: str | None, status: RunStatus | None, limit: int) -> RunPage:
    """Up to `limit` runs from as many pages as that takes."""
    runs: list[RunSummary] = []
    cursor: str | None = None
    while True:
        page = client.runs(
            flow_id=flow_id, status=status, limit=min(limit - len(runs), MOST_PER_PAGE), cursor=cursor
        )
        runs += page.runs
        cursor = page.next_cursor
        if cursor is None or len(runs) >= limit:
            return RunPage(runs=runs, next_cursor=cursor)


def _row(run: RunSummary) -> Row:
    return Row(
        (
            Cell(run.id),
            Cell(run.status, words.STYLES.get(run.status, "")),
            Cell(words.local_time(run.started_at)),
            Cell(words.duration(run.duration_ms)),
            Cell(run.trigger_type or words.UNKNOWN),
            Cell(words.count(run.step_count)),
            Cell(run.flow_id),
        )
    )

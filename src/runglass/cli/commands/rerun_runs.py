"""`runglass runs rerun`: run one run again, or with `--yes` all that a query finds, each once."""

import uuid
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING, Literal

import click

from runglass.cli import argument_parsers, options
from runglass.cli.backends.server import MOST_PER_PAGE, Server, named_run, names_run
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import complain, note, one_line, stdout, write_json, write_line
from runglass.errors import FlowNotFoundError, RequestError, RunglassError
from runglass.log.money import ZERO, add_usd, format_usd, parse_usd
from runglass.log.trace import TERMINAL, RunSummary

if TYPE_CHECKING:
    from runglass.client import Client

Version = int | Literal["same", "production"]
_SPACE = uuid.UUID("6f2d6a0e-6d0b-4b53-8f0e-3a1f6b8f2a11")
"""The namespace of the sessions that commands give their runs."""


def _version(text: str) -> Version:
    if text == "same":
        return "same"
    version = argument_parsers.version(text)
    return 0 if version == "draft" else version


def _usd(text: str) -> Decimal:
    usd = parse_usd(text.removeprefix("$"))
    if usd is None:
        raise UsageError(f"{text!r} is no amount of US dollars: write 5 or 0.25")
    return usd


@click.command()
@click.argument(
    "runs",
    metavar="RUN_ID|QUERY",
    help="A run, as `runs show` takes it, or a query, as `runs list` takes it.",
)
@click.option(
    "--version",
    type=_version,
    default="same",
    metavar="VERSION",
    help="same (of a draft: the current draft), production, draft or a number.",
)
@click.option("--yes", is_flag=True, help="Start the runs; without it, only list them.")
@click.option(
    "--budget",
    type=_usd,
    metavar="USD",
    help="Stop before the cost of the original runs exceeds this.",
)
@options.as_json
@options.running_server
def rerun(
    runs: str, version: Version, yes: bool, budget: Decimal | None, as_json: bool, server: Server
) -> None:
    """Rerun a run from its recorded input, or with --yes all ended runs of a query.

    Overrides are not repeated.

    The same query with the same version reruns each run once, as long as the new runs exist. It skips
    reruns and recorded runs; the new runs share a session. A run given by its id is rerun each time.
    """
    if not runs.strip():
        # The usual reason is a variable of the shell that has no value.
        raise UsageError(
            "the query is empty: say which runs; `status:completed,failed,cancelled` are all that have ended"
        )
    with server.connect() as client:
        if names_run(runs):
            if budget is not None:
                raise UsageError("--budget is for a query; one run is started whatever the first one cost")
            named = named_run(client, runs)
            _note_overrides([named.summary()])
            again = named.rerun(version=version).execution_id
            if as_json:
                write_json({"started": again})
            else:
                write_line(stdout(), again)
            return
        session = uuid.uuid5(_SPACE, f"{version}\n{' '.join(runs.split())}")
        started = {run.rerun_of for run in client.runs(query=f"session:{session}", limit=MOST_PER_PAGE)}
        pages = client.runs(query=f"{runs} -trigger:replay kind:executed", limit=MOST_PER_PAGE)
        ended = [run for run in reversed(list(pages)) if run.status in TERMINAL]
        due = [run for run in ended if run.id not in started]
        done = len(ended) - len(due)
        # Those that were started before count, or the same command would go on beyond its budget.
        spent = _cost(run for run in ended if run.id in started)
        without_input = {run.id for run in due if run.input_preview is None}
        affordable = list(_affordable(due, budget, spent, without_input))
        left = len(due) - len(affordable)
        planned = [run for run in affordable if run.id not in without_input]
        if budget is not None and any(map(_has_unknown_costs, planned)):
            note("some costs of the first runs are not known, and the budget counts none for these")
        _note_overrides(planned)
        if not yes:
            _print_preview(planned, left=left, done=done, session=session, as_json=as_json)
            if without_input:
                note(f"{formatting.counted(len(without_input), 'run')} kept no input and cannot be run again")
            return
        new, refused = _start_all(client, due, version, session, budget=budget, spent=spent)
        left = len(due) - len(new) - len(refused)
    if as_json:
        write_json(
            {"session": str(session), "started": new, "refused": refused, "before": done, "overBudget": left}
        )
    else:
        write_line(
            stdout(), f"started {formatting.counted(len(new), 'run')}{_already(done)}; session:{session}"
        )
    if left:
        note(
            f"{formatting.counted(left, 'run')} not started: with the next one the first runs cost more"
            f" than {formatting.money(format_usd(budget or ZERO))}"
        )
    if refused:
        complain(f"{formatting.counted(len(refused), 'run')} could not be run again")
        raise click.exceptions.Exit(Exit.FAILED)


def _cost(runs: Iterable[RunSummary]) -> Decimal:
    costs = (Decimal(run.totals.cost_usd) for run in runs if run.totals and run.totals.cost_usd)
    return reduce(add_usd, costs, ZERO)


def _affordable(
    due: Iterable[RunSummary], budget: Decimal | None, spent: Decimal, refused: Container[str]
) -> Iterator[RunSummary]:
    """The first runs, as far as the budget goes; one that is `refused` by the next turn costs nothing."""
    for run in due:
        usd = add_usd(spent, _cost([run]))
        if budget is not None and usd > budget:
            return
        yield run
        if run.id not in refused:
            spent = usd


def _note_overrides(runs: Sequence[RunSummary]) -> None:
    if count := sum(bool(run.overridden) for run in runs):
        note(f"{formatting.counted(count, 'run')} had overrides, which are not repeated")


def _has_unknown_costs(run: RunSummary) -> bool:
    return run.totals is not None and run.totals.unmetered_calls + run.totals.unpriced_calls > 0


def _print_preview(
    due: Sequence[RunSummary], *, left: int, done: int, session: uuid.UUID, as_json: bool
) -> None:
    flows = Counter(formatting.flow(run) for run in due)
    usd = _cost(due)
    is_least = any(map(_has_unknown_costs, due))
    if as_json:
        write_json(
            {
                "session": str(session),
                "count": len(due),
                "flows": dict(flows),
                "costUsd": format_usd(usd),
                "costIsLeast": is_least,
                "before": done,
                "overBudget": left,
            }
        )
        return
    console = stdout()
    write_line(console, f"{formatting.counted(len(due), 'run')} would be started{_already(done)}")
    for flow, count in flows.most_common():
        write_line(console, f"  {count:,} of {one_line(flow)}")
    write_line(console, f"the first runs cost {'≥ ' if is_least else ''}{formatting.money(format_usd(usd))}")
    if left:
        note(f"{formatting.counted(left, 'run')} beyond the budget")
    if any(run.version == 0 for run in due):
        note("runs of a draft are run again with the draft as it is now, unless --version says otherwise")
    if due:
        note("nothing has been started: add --yes")


def _already(done: int) -> str:
    return f"; {done:,} before, by the same command" if done else ""


def _start_all(
    client: "Client",
    due: Sequence[RunSummary],
    version: Version,
    session: uuid.UUID,
    *,
    budget: Decimal | None,
    spent: Decimal,
) -> tuple[dict[str, str], dict[str, str]]:
    """Starts each, as far as the budget goes.

    Returns the new runs, and why others were refused, by the id of the first run.
    """
    new: dict[str, str] = {}
    refused: dict[str, str] = {}
    for run in _affordable(due, budget, spent, refused):
        # The session finds what was started before; the key holds two commands at the same moment apart.
        key = f"rerun {session} {run.id}"
        try:
            again = client.run(run.id).rerun(version=version, session_id=session, idempotency_key=key)
            new[run.id] = again.execution_id
        except (FlowNotFoundError, RequestError) as error:
            # Its own affair: without an input, or purged meanwhile, or of a flow that has no such version.
            refused[run.id] = error.message
            note(f"not started: {one_line(error.message, limit=400)}")
        except RunglassError:
            note(f"started {len(new):,} of {formatting.counted(len(due), 'run')}, then:")
            raise
    return new, refused

"""`runglass runs rerun`: run one run again, or with `--yes` all that a query finds, each once."""

import uuid
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from decimal import Decimal
from functools import reduce
from typing import Literal

import click

from runglass.cli import argument_parsers, options
from runglass.cli.backends.server import MOST_PER_PAGE, Server, named_run, names_run
from runglass.cli.commands.delete_runs import found_by
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.formatting import counted, money
from runglass.cli.terminal.output import complain, note, one_line, write_json, write_lines
from runglass.client import Client
from runglass.errors import FlowNotFoundError, RequestError, RunglassError
from runglass.log.money import ZERO, add_usd, format_usd, parse_usd
from runglass.log.trace import TERMINAL, RunSummary

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
@options.run_or_query
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
@options.server
def rerun(
    runs: str, version: Version, yes: bool, budget: Decimal | None, as_json: bool, server: Server
) -> None:
    """Rerun a run from its recorded input, or with --yes all ended runs of a query.

    Overrides are not repeated.

    The same query with the same version reruns each run once, as long as the new runs exist. It skips
    reruns and recorded runs; the new runs share a session. A run given by its id is rerun each time.

    With --data the runs are executed here, and the exit code is 1 unless all complete.
    """
    with server.connect(executes=yes or names_run(runs)) as client:
        if names_run(runs):
            if budget is not None:
                raise UsageError("--budget is for a query; one run is started whatever the first one cost")
            named = named_run(client, runs)
            again = named.rerun(version=version).execution_id
            if as_json:
                write_json({"started": again})
            else:
                write_lines([again])
            _execute_here(client, [again], server)
            return
        found = list(found_by(client, runs, "-trigger:replay kind:executed"))
        session = uuid.uuid5(_SPACE, f"{version}\n{' '.join(runs.split())}")
        started = {run.rerun_of for run in client.runs(query=f"session:{session}", limit=MOST_PER_PAGE)}
        ended = [run for run in reversed(found) if run.status in TERMINAL]
        due = [run for run in ended if run.id not in started]
        # Those that were started before count, or the same command would go on beyond its budget.
        spent = _cost(run for run in ended if run.id in started)
        without_input = {run.id for run in due if run.input_preview is None}
        affordable = list(_affordable(due, budget, spent, without_input))
        planned = [run for run in affordable if run.id not in without_input]
        new, refused = _start_all(client, due if yes else [], version, session, budget=budget, spent=spent)
        left = len(due) - (len(new) + len(refused) if yes else len(affordable))
        done = len(ended) - len(due)
        told = {"session": str(session), "before": done, "overBudget": left}
        also = f"; {done:,} before, by the same command" if done else ""
        if yes and as_json:
            write_json(told | {"started": new, "refused": refused})
        elif yes:
            write_lines([f"started {counted(len(new), 'run')}{also}; session:{session}"])
        else:
            _print_preview(planned, told if as_json else None, also)
        if left:
            note(f"{counted(left, 'run')} left out: beyond the budget of {money(format_usd(budget or ZERO))}")
        if refused:
            complain(f"{counted(len(refused), 'run')} could not be run again")
        if without_input and not yes:
            note(f"{counted(len(without_input), 'run')} kept no input and cannot be run again")
        _execute_here(client, list(new.values()), server)
    if refused:
        raise click.exceptions.Exit(Exit.FAILED)


def _execute_here(client: Client, run_ids: Sequence[str], server: Server) -> None:
    """Waits until the runs have ended, where this process executes them. Raises Exit unless all complete."""
    if not server.is_folder:
        return
    try:
        statuses = Counter(client.run(run_id).wait().status for run_id in run_ids)
    except KeyboardInterrupt:
        note("runs that have not ended go on once the folder is served")
        raise
    if statuses.total() > statuses["completed"]:
        complain(", ".join(f"{number:,} {status}" for status, number in statuses.most_common()))
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


def _print_preview(due: Sequence[RunSummary], told: dict[str, object] | None, also: str) -> None:
    flows = Counter(formatting.flow(run) for run in due)
    usd = format_usd(_cost(due))
    is_least = any(run.totals and run.totals.unmetered_calls + run.totals.unpriced_calls for run in due)
    if told is not None:
        about = {"count": len(due), "flows": dict(flows), "costUsd": usd, "costIsLeast": is_least}
        write_json(told | about)
        return
    write_lines(
        [
            f"{counted(len(due), 'run')} would be started{also}",
            *(f"  {count:,} of {one_line(flow)}" for flow, count in flows.most_common()),
            f"the first runs cost {'≥ ' if is_least else ''}{money(usd)}",
        ]
    )
    if due:
        note("nothing has been started: add --yes")


def _start_all(
    client: Client,
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
            note(f"started {len(new):,} of {counted(len(due), 'run')}, then:")
            raise
    return new, refused

"""`runglass watch`: another program is run, and what it does is recorded and shown live.

More than 300 lines: one command, from what it sets to what it says at the end.
"""

import os
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise, takewhile
from pathlib import Path

import click
from rich.text import Text

from runglass.cli import options
from runglass.cli.backends.instrumentation import SENDERS, Installed, Prepared, look, prepare
from runglass.cli.backends.program import NOT_EXECUTABLE, NOT_FOUND, run_program
from runglass.cli.backends.receiver import Receiver, receiver
from runglass.cli.backends.server import Server
from runglass.cli.terminal import formatting
from runglass.cli.terminal.event_lines import EventLines
from runglass.cli.terminal.output import (
    PipeClosed,
    is_watched,
    log_to_stderr,
    note,
    one_line,
    stderr,
    warn,
    write_line,
)
from runglass.cli.terminal.table import SHORT_CHARS
from runglass.errors import RunglassError
from runglass.log.events import RunStarted, StepRecorded, is_terminal
from runglass.log.trace import TERMINAL, RunSummary

QUERY = "kind:recorded"
MOST_RUNS = 100
"""Of so many runs the steps and ends are shown; further ones are recorded alone."""
NOTHING_S = 1.0
"""How long something may still come from a program that has ended and sent nothing."""
SHOWN_S = 5.0
"""How long showing what has come may take."""
POLL_S = 0.1


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument(
    "command",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="COMMAND...",
    help="The program with its arguments, behind `--`.",
)
@click.option(
    "--content/--no-content",
    default=None,
    help="Whether libraries send prompts and answers. By default they do, unless a variable says not.",
)
@click.option(
    "--instrument/--no-instrument",
    default=True,
    help="Whether to run a Python program by its opentelemetry-instrument.",
)
@click.option(
    "--steps/--no-steps",
    default=None,
    help="Whether to show each step on stderr. By default on a terminal.",
)
@click.option(
    "--name", metavar="NAME", help="Name of the service and so of the flow. By default the program's."
)
@click.option(
    "--wait",
    "wait_s",
    type=options.Number(min=0, min_open=True),
    default=10.0,
    metavar="SECONDS",
    help="Maximum wait, after the program's end, for runs that are still active.",
)
@click.option(
    "--open", "opens", is_flag=True, help="Open the first run in a browser, and serve until Ctrl-C."
)
@options.server
def watch(
    command: tuple[str, ...],
    content: bool | None,
    instrument: bool,
    steps: bool | None,
    name: str | None,
    wait_s: float,
    opens: bool,
    server: Server,
) -> None:
    """Run a program, record what it sends over OpenTelemetry, and show its steps live.

    Write -- before the program: runglass watch -- python my_agent.py. Its exit code is that of this command.
    Without --base-url, the running server of the data folder records, or else one that ends with the program.
    """
    log_to_stderr("error")
    shows = is_watched(stderr()) if steps is None else steps
    installed = look(command)
    code = None
    try:
        with receiver(server) as found:
            prepared = prepare(
                os.environ,
                installed,
                address=found.address,
                key=found.record_key,
                service=name or service_of(command),
                content=content,
            )
            _say_what_is_kept(prepared, found.address)
            script = installed.instrument if installed is not None and instrument else None
            if shows and installed is not None and "opentelemetry-sdk" not in installed.names:
                _say_what_is_missing(installed)
            runs = _Runs(found, steps=shows, opens=opens)
            program = command if script is None else (str(script), *command)
            code = run_program(program, os.environ | prepared.variables)
            if runs.finish(wait_s):
                if opens and found.is_own:
                    note(f"serving {found.address}; Ctrl-C stops it")
                    threading.Event().wait()
            elif code not in (NOT_FOUND, NOT_EXECUTABLE):
                _say_why_nothing_came(runs, prepared, installed, is_instrumented=script is not None)
                if code > 128:
                    note("a signal ended it: most SDKs send the rest only when a program ends in order")
    except (KeyboardInterrupt, RunglassError) as error:
        # Once the program has ended, the exit code is its own.
        if code is None:
            raise
        if isinstance(error, RunglassError):
            warn(f"what the program sent cannot be shown: {error}")
    raise click.exceptions.Exit(code)


def service_of(command: tuple[str, ...]) -> str:
    """The name of the program: of `python -m my.agent` my.agent, of `uv run agent.py` agent."""
    for word, following in pairwise((*command, "")):
        if word == "-m":
            return following
        if Path(word).suffix in (".py", ".js", ".mjs", ".ts"):
            return Path(word).stem
    return Path(command[0]).stem


class _Runs:
    """The runs that come from now on; of each a thread shows the steps."""

    def __init__(self, receiver: Receiver, *, steps: bool, opens: bool) -> None:
        self.receiver = receiver
        self._steps = steps
        self._opens = opens
        self._lock = threading.Lock()
        self._shown: dict[str, set[tuple[str, tuple[int, ...] | None]]] = {}
        """By run the steps of which there were lines."""
        self._ended: set[str] = set()
        page = receiver.client.runs(query=QUERY, limit=1)
        self._before = page.runs[0].id if page.runs else ""
        if steps or opens:
            threading.Thread(target=self._look_out, args=(page.last_change,), daemon=True).start()

    def list(self, query: str = QUERY) -> list[RunSummary]:
        """Those that have come, oldest first."""
        page = self.receiver.client.runs(query=query, limit=MOST_RUNS)
        # Ids are those of one server, and in the order of time.
        return [*takewhile(lambda run: run.id > self._before, page.runs)][::-1]

    def finish(self, wait_s: float) -> bool:
        """Waits for what still comes, and says what has come of each run; whether there is any."""
        began_s = time.monotonic()
        while True:
            runs = self.list()
            is_open = any(run.recording is not None and not run.recording.entry_ended for run in runs)
            longest_s = wait_s if runs else min(NOTHING_S, wait_s)
            if (runs and not is_open) or time.monotonic() - began_s >= longest_s:
                break
            time.sleep(POLL_S)
        self.receiver.end([run.id for run in runs])
        runs, began_s = self.list(), time.monotonic()
        while not all(map(self._is_shown, runs)) and time.monotonic() - began_s < SHOWN_S:
            time.sleep(POLL_S)
        with self._lock:
            for run in runs:
                write_line(stderr(), self._result(run))
        if runs and is_watched(stderr()):
            given = self.receiver.options
            note(f"look closer: runglass runs show {runs[-1].id}{given}")
            if self.receiver.is_own and not self._opens:
                data = given.partition(" --project")[0]
                note(f"or in a browser, as this server ends now: runglass serve --open{data}")
        return bool(runs)

    def _is_shown(self, run: RunSummary) -> bool:
        if not self._steps or run.id in self._ended:
            return True
        steps = self._shown.get(run.id)
        return steps is not None and run.status not in TERMINAL and len(steps) >= (run.step_count or 0)

    def _result(self, run: RunSummary) -> Text:
        totals, recording, status = run.totals, run.recording, run.status
        if status not in TERMINAL and recording is not None and recording.entry_ended:
            # Its server says later that nothing has come any more.
            status = "failed" if self._has_failed(run) else "completed"
        mark, style = formatting.mark(status)
        took = "" if run.duration_ms is None else f" in {formatting.duration(run.duration_ms)}"
        parts = [f"{status}{took}", formatting.counted(run.step_count or 0, "step")]
        if totals is not None and totals.tokens is not None:
            parts.append(formatting.counted(totals.tokens.total, "token"))
        if totals is not None and totals.cost_usd is not None:
            parts.append(formatting.least_money(totals))
        where = run.id if self.receiver.is_own else self.receiver.link(f"/runs/{run.id}")
        name = one_line(formatting.flow(run), limit=80)
        line = Text.assemble((f"{mark} ", style), (name, "bold"), f"  {', '.join(parts)}  {where}")
        if run.error is not None:
            line.append(f"\n  {one_line(formatting.run_error(run.error))}", "red")
        return line

    def _has_failed(self, run: RunSummary) -> bool:
        """Whether a span at the top has failed, for which its run will have, too."""
        if run.totals is None or not run.totals.failed:
            return False
        try:
            steps = self.receiver.client.run(run.id).trace().steps
        except RunglassError:
            return False
        received = {step.span_id for step in steps if step.name is not None}
        return any(step.status == "failed" and step.parent_span_id not in received for step in steps)

    def _look_out(self, after: int | None) -> None:
        with _showing("further runs are"):
            for change in self.receiver.client.live_runs(query=QUERY, after=after):
                if (run := change.run) is None or run.id in self._shown:
                    continue
                link = self.receiver.link(f"/runs/{run.id}")
                if self._opens and not self._shown:
                    webbrowser.open(link)
                self._shown[run.id] = set()
                if self._steps and len(self._shown) <= MOST_RUNS:
                    with self._lock:
                        name = one_line(formatting.flow(run), limit=80)
                        write_line(stderr(), Text.assemble(("▶ ", "bold"), (name, "bold"), f"  {link}"))
                    threading.Thread(target=self._follow, args=(run.id,), daemon=True).start()

    def _follow(self, run_id: str) -> None:
        lines = EventLines()
        with _showing(f"run {run_id} is"):
            for event in self.receiver.client.run(run_id).live_trace():
                if isinstance(event, RunStarted):
                    # The times of the lines count from it.
                    lines.line(event)
                    continue
                with self._lock:
                    several = f"{run_id[-SHORT_CHARS:]} " if len(self._shown) > 1 else ""
                    write_line(stderr(), Text.assemble((several, "dim"), lines.line(event)))
                if isinstance(event, StepRecorded):
                    self._shown[run_id].add((event.step_id, event.loop_path))
                elif is_terminal(event):
                    self._ended.add(run_id)


@contextmanager
def _showing(what: str) -> Iterator[None]:
    """A thread that shows something, until the end of it or as long as that goes well."""
    try:
        yield
    except RunglassError as error:
        warn(f"{what} recorded and not shown: {error}")
    except (PipeClosed, RuntimeError):
        return  # Nobody looks any more, or the client was closed.


def _say_what_is_kept(prepared: Prepared, address: str) -> None:
    if prepared.kept:
        note(f"left as you have set them: {', '.join(prepared.kept)}")
    if prepared.elsewhere is not None:
        warn(
            f"an OTEL_EXPORTER_OTLP_…ENDPOINT of yours sends traces to {prepared.elsewhere}, and not to"
            f" {address}: unset it to see them here"
        )
    elif "OTEL_EXPORTER_OTLP_PROTOCOL" in prepared.kept:
        warn(f"{address} speaks http/protobuf: unset OTEL_EXPORTER_OTLP_PROTOCOL")


def _say_what_is_missing(installed: Installed) -> None:
    if installed.libraries and installed.missing:
        libraries, missing = " and ".join(installed.libraries), " ".join(installed.missing)
        more = "; a runglass.Recorder needs none of it" if "runglass" in installed.names else ""
        note(f"for spans of {libraries}, install in {installed.interpreter.parents[1]}: {missing}{more}")


def _say_why_nothing_came(
    runs: _Runs, prepared: Prepared, installed: Installed | None, *, is_instrumented: bool
) -> None:
    if is_plain := bool(runs.list("kind:plain")):
        shown = f"runglass runs list kind:plain{runs.receiver.options}"
        warn(f"traces came, but none with a call of a model, an agent or a tool: {shown}")
    else:
        warn("the program sent no traces")
    if prepared.elsewhere is not None:
        return
    if installed is None:
        note("no Python was found in the command: does it set up OpenTelemetry, or an SDK that sends?")
    else:
        if "pydantic-ai-slim" in installed.names:
            note("pydantic-ai has spans after Agent.instrument_all() or logfire.instrument_pydantic_ai()")
        if senders := " or ".join(sorted(installed.names.intersection(SENDERS))):
            note(f"does the program set up {senders}, and end in order?")
        elif not is_instrumented:
            _say_what_is_missing(installed)
    if not is_plain:
        note("runglass doctor tests the way from here to the server")

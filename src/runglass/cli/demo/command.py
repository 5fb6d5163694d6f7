"""`runglass demo`: a real flow, watched live, and its trace, with nothing to prepare."""

import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from runglass.cli import options
from runglass.cli.argument_parsers import text_of
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import (
    heading,
    log_to_stderr,
    one_line,
    stdout,
    warn,
    write_json,
    write_line,
    write_lines,
)
from runglass.config.reader import read_settings
from runglass.config.settings import Price
from runglass.log.trace import StepTrace

if TYPE_CHECKING:
    from runglass.cli.demo.run import DemoRun

LIMIT_BYTES = 2_000_000
SERVE_PORT = 8090
"""Not the default: a server of one's own may have that, and the demo is served beside it."""
ECHO_PRICE = Price(input_per_mtok=Decimal("0.15"), output_per_mtok=Decimal("0.60"))
"""The offline model is free; priced like a small hosted one, it shows how costs look."""


@click.command()
@click.option("--file", type=options.FILE, metavar="FILE", help="Your own text instead of the story.")
@click.option(
    "--model",
    default="echo",
    metavar="MODEL",
    help="Model of the llm steps, such as openai:gpt-4o-mini; echo is offline.",
)
@click.option(
    "--data",
    type=options.FILE,
    default="runglass-demo",
    metavar="FOLDER",
    help="Data folder for the runs.",
)
def demo(file: Path | None, model: str, data: Path) -> None:
    """Run a flow over a story, watch it live and read its trace."""
    began_s = time.monotonic()
    # Imported here: no other command is to wait for the server and the engine.
    from runglass.cli.demo.run import PROJECT, show_run
    from runglass.flows.parser import parse_flow

    text = story() if file is None else read_text(file)
    flow = parse_flow(flow_file(), file="demo.yaml")
    settings = read_settings(
        {
            "host": "127.0.0.1",
            "port": 0,
            "data": data,
            # The environment may name a store that is in use, and the demo is not to write to it.
            "store": f"sqlite:///{data / 'runglass.db'}",
            "bus": "memory://",
            "executes_runs": True,
            "synchronous": "NORMAL",
            "capture": "metadata_only",
            "log_level": "error",
        },
        warn=warn,
    )
    settings = msgspec.structs.replace(settings, prices={"echo": ECHO_PRICE, **settings.prices})
    log_to_stderr(settings.log_level)
    is_new = not data.exists()
    title = one_line(text.lstrip().partition("\n")[0], limit=60)
    _say(
        f"The flow {flow.slug!r} reads “{title}” ({formatting.size(len(text.encode()))})"
        f" with the model {model}."
    )
    if model == "echo" and settings.prices["echo"] == ECHO_PRICE:
        _say(
            f"(echo is offline and free; for show it is priced at ${ECHO_PRICE.input_per_mtok} and"
            f" ${ECHO_PRICE.output_per_mtok} per million tokens in and out.)"
        )
    _say(
        "(The capture mode is full, so that you see what went in and came out; a server of yours keeps no"
        " content of runs that go well unless you ask: its mode is metadata_only.)"
    )
    shown = show_run(settings, flow, text, model=model)
    if shown.result is not None:
        heading("The result")
        write_json(shown.result.result, indent=2)
    heading(f"That took {formatting.duration(round((time.monotonic() - began_s) * 1000))}. To look further")
    write_lines(_next_steps(shown, data, f"{PROJECT}/{flow.slug}"))
    if is_new:
        _say(f"When you have seen enough: rm -r {shlex.quote(str(data))}")
    if shown.result is None:
        raise click.exceptions.Exit(Exit.FAILED)


def _next_steps(shown: "DemoRun", data: Path, flow: str) -> Iterator[str]:
    command, folder, run_id = _command(), shlex.quote(str(data)), shown.trace.flow_run.id
    yield f"The run is kept in the folder {folder}. Serve it in one terminal:"
    yield ""
    yield f"  {command} serve --data {folder} --port {SERVE_PORT} --open"
    yield ""
    yield "That opens the runs in a browser. Or look at them in another terminal:"
    yield ""
    yield f"  export RUNGLASS_BASE_URL=http://localhost:{SERVE_PORT}/api/v1 RUNGLASS_API_KEY={shown.key}"
    yield f"  {command} runs list"
    yield f"  {command} runs show {run_id}"
    retried = next((step for step in shown.trace.steps if step.attempt > 1 or step.status == "failed"), None)
    if retried is not None:
        yield f"  {command} runs step {run_id} {_step_arguments(retried)} --attempt all"
    calling = next((step for step in shown.trace.steps if step.model_calls), None)
    if calling is not None:
        yield f"  {command} runs step {run_id} {_step_arguments(calling)}"
    yield f"  {command} runs tail {run_id}"
    yield f'  {command} run {flow} --message "A text of yours." --trace'
    yield ""
    yield f"Read a text of yours: {command} demo --file TEXT; with a real model: --model openai:gpt-4o-mini"


def _step_arguments(step: StepTrace) -> str:
    return f"{step.step_id} --loop {formatting.iteration(step)}" if step.loop_path else step.step_id


def _command() -> str:
    """The words that start this program: its name where the shell finds it by that, else its path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m runglass"
    found = shutil.which("runglass")
    if not called.exists() or (found is not None and Path(found).resolve() == called.resolve()):
        return "runglass"
    return shlex.quote(sys.argv[0])


def _say(line: str) -> None:
    write_line(stdout(), line)


def story() -> str:
    """The story that comes with Runglass."""
    return files("runglass.cli").joinpath("story.txt").read_text(encoding="utf-8")


def read_text(file: Path) -> str:
    """The text of a file, line ends as LF. Raises UsageError for what is not a text, empty or too large."""
    text = text_of(str(file), "file", most_bytes=LIMIT_BYTES)
    if "\0" in text:
        raise UsageError(f"{str(file)!r} is not a plain text: it holds zero bytes; save it as UTF-8 text")
    if not text.strip():
        raise UsageError(f"there is no text in {str(file)!r}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def flow_file() -> bytes:
    """The flow file of the demo."""
    return files("runglass.cli").joinpath("demo.yaml").read_bytes()

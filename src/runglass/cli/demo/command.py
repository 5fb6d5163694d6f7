"""`runglass demo`: a real flow, watched live, and its trace, with nothing to prepare."""

import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

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
    warn,
    write_json,
    write_lines,
)
from runglass.config.reader import read_settings
from runglass.config.settings import Price
from runglass.log.trace import Trace

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

    story = files("runglass.cli").joinpath("story.txt")
    text = story.read_text("utf-8") if file is None else read_text(file)
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
    title = one_line(text.lstrip().partition("\n")[0], limit=60)
    is_priced = model == "echo" and settings.prices["echo"] == ECHO_PRICE
    price = " (offline and free, but priced for show)" if is_priced else ""
    size = formatting.size(len(text.encode()))
    write_lines(
        [
            f"The flow {flow.slug!r} reads “{title}” ({size}) with the model {model}{price}.",
            "Its capture mode is full, so you see what went in and came out. The default, metadata_only,"
            " keeps no content of runs that go well.",
        ]
    )
    key, trace, result = show_run(settings, flow, text, model=model)
    if result is not None:
        heading("The result")
        write_json(result.result, indent=2)
    heading(f"That took {formatting.duration(round((time.monotonic() - began_s) * 1000))}. To look further")
    write_lines(_next_steps(trace, data, f"{PROJECT}/{flow.slug}", key=key))
    if result is None:
        raise click.exceptions.Exit(Exit.FAILED)


def _next_steps(trace: Trace, data: Path, flow: str, *, key: str) -> Iterator[str]:
    command, folder, run_id = _command(), shlex.quote(str(data)), trace.flow_run.id
    yield f"The run is kept in the folder {folder}. Serve it in one terminal, and see it in a browser:"
    yield f"\n  {command} serve --data {folder} --port {SERVE_PORT} --open\n"
    yield "Or look at it in another terminal:"
    yield f"\n  export RUNGLASS_BASE_URL=http://localhost:{SERVE_PORT}/api/v1 RUNGLASS_API_KEY={key}"
    yield f"  {command} runs list"
    yield f"  {command} runs show {run_id}"
    retried = next((step for step in trace.steps if step.attempt > 1 or step.status == "failed"), None)
    calling = next((step for step in trace.steps if step.model_calls), None)
    for step, more in ((retried, " --attempt all"), (calling, "")):
        if step is not None:
            loop = f" --loop {formatting.iteration(step)}" if step.loop_path else ""
            yield f"  {command} runs step {run_id} {step.step_id}{loop}{more}"
    yield f"  {command} runs tail {run_id}"
    yield f'  {command} run {flow} --message "A text of yours." --trace\n'
    yield f"Read a text of yours: {command} demo --file TEXT; with a real model: --model openai:gpt-4o-mini"


def _command() -> str:
    """The words that start this program: its name where the shell finds it by that, else its path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m runglass"
    found = shutil.which("runglass")
    is_other = called.exists() and (found is None or Path(found).resolve() != called.resolve())
    return shlex.quote(sys.argv[0]) if is_other else "runglass"


def read_text(file: Path) -> str:
    """The text of a file, line ends as LF. Raises UsageError for what is not a text, empty or too large."""
    try:
        with file.open("rb") as opened:
            data = opened.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror or error}") from error
    if len(data) > LIMIT_BYTES:
        raise UsageError(f"{str(file)!r} is too large: up to {LIMIT_BYTES:,} bytes are read")
    text = text_of(data, repr(str(file)))
    if not text.strip() or "\0" in text:
        raise UsageError(f"there is no plain text in {str(file)!r}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def flow_file() -> bytes:
    """The flow file of the demo."""
    return files("runglass.cli").joinpath("demo.yaml").read_bytes()

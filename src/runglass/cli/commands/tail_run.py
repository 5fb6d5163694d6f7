"""`runglass runs tail`: a run from its first event on, live until it ends."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import click
from rich.console import Console

from runglass.cli import options
from runglass.cli.backends.server import Server, named_run
from runglass.cli.exit_codes import Exit
from runglass.cli.terminal.event_lines import EventLines
from runglass.cli.terminal.live_area import FRAME_S, LiveArea, can_repaint
from runglass.cli.terminal.output import note, stdout, write_json, write_line
from runglass.cli.terminal.run_progress import MOST_LINES, RunProgress
from runglass.log.events import FlowCompleted, StepError, StreamEvent, UnknownEvent, is_terminal


@click.command()
@options.run_id
@options.as_json
@options.server
def tail(run_id: str, as_json: bool, server: Server) -> None:
    """A run from its first event on, then live until it ends. Exit code 1 if it does not complete.

    On a terminal finished steps stay, and below them is what goes on; a file or a pipe gets every event on
    a line.
    """
    console = stdout()
    with server.connect() as client:
        run = named_run(client, run_id)
        if not as_json and can_repaint(console):
            try:
                last = asyncio.run(_follow(console, run.execution_id, server))
            except KeyboardInterrupt:
                note(f"follow it again: runglass runs tail {run.execution_id}")
                note(f"cancel it: runglass runs cancel {run.execution_id}")
                raise
        else:
            last, lines = None, EventLines()
            for last in run.live_trace():
                if as_json:
                    write_json(last.data if isinstance(last, UnknownEvent) else last)
                else:
                    write_line(console, lines.line(last))
    if last is not None and is_terminal(last) and not isinstance(last, FlowCompleted):
        if not as_json:
            note(f"why, and where: runglass runs show {run.execution_id}")
        raise click.exceptions.Exit(Exit.FAILED)


async def _follow(console: Console, run_id: str, server: Server) -> StreamEvent | None:
    """Shows the run until it ends; its last event."""
    progress = RunProgress()
    last: StreamEvent | None = None
    async with server.connect_async() as client:
        with LiveArea(console) as area:
            repainting = asyncio.create_task(_repaint(area, progress))
            try:
                async for last in client.run(run_id).live_trace():
                    for line in progress.add(last):
                        if not isinstance(last, StepError) and not is_terminal(last):
                            line.truncate(area.size[0], overflow="ellipsis")
                        area.keep(line)
                    if area.is_due:
                        _paint(area, progress)
            finally:
                repainting.cancel()
                with suppress(asyncio.CancelledError):
                    await repainting
    return last


async def _repaint(area: LiveArea, progress: RunProgress) -> None:
    while True:
        _paint(area, progress)
        await asyncio.sleep(FRAME_S)


def _paint(area: LiveArea, progress: RunProgress) -> None:
    width, height = area.size
    area.paint(progress.lines(now=datetime.now(UTC), width=width, most=min(MOST_LINES, height)))

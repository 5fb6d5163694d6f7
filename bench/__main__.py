"""`make bench`: every figure of Runglass beside its peers and its limit, in one table.

Run as `python -m bench [NAME ...] [OPTIONS]`. The exit code is 1 if a figure could not be measured; a target
that is missed is a line of the table and no error.
"""

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import SubprocessError

import click
from rich.console import Console

from bench.browsing import obstacle
from bench.children import BenchError
from bench.machine import machine, peers
from bench.rows import Failed, Row
from bench.sizes import LONG, TINY, Sizes
from bench.stage import Stage
from bench.table import as_json, terminal_table, write_page
from runglass.errors import RunglassError
from tests.process_guard import stand_guard

FIGURES = (
    "decode_trace",
    "decode_events",
    "large_frame",
    "steps_alone",
    "steps_at_once",
    "read_trace",
    "read_small_trace",
    "replay",
    "latency",
    "readable",
    "spans",
    "recorder",
    "start",
    "memory_each",
    "importing",
    "disk",
    "growth",
    "run_list",
    "viewer",
)
ON_POSTGRES = ("steps_on_postgres", "claims", "wake_ups", "failover", "flood")
"""Measured by their names alone: they take minutes, and a machine with more than two processors."""
IN_A_BROWSER = "viewer"

FILE = click.Path(path_type=Path)

console = Console(highlight=False, width=None if sys.stdout.isatty() else 170)
progress = Console(stderr=True, highlight=False, soft_wrap=True)


@click.command()
@click.argument(
    "names",
    type=click.Choice(FIGURES + ON_POSTGRES),
    nargs=-1,
    metavar="[FIGURE]...",
    help=f"{', '.join(FIGURES)}; by their names alone {', '.join(ON_POSTGRES)}.",
)
@click.option("--json", type=FILE, metavar="FILE", help="Write every sample to this file.")
@click.option("--write", type=FILE, metavar="FILE", help="Put the table between the marks of this page.")
@click.option("--no-peers", is_flag=True, help="Leave the peers out.")
@click.option("--tiny", is_flag=True, help="Show that it works; the numbers mean nothing.")
@click.option(
    "--long",
    is_flag=True,
    help="Growth over 200,000 steps, 1,000,000 runs, a run of 1,000,000 steps in the viewer.",
)
def bench(
    names: tuple[str, ...], json: Path | None, write: Path | None, no_peers: bool, tiny: bool, long: bool
) -> None:
    """Measures ours, the peers and the limit in turns, and prints the medians."""
    chosen = names or FIGURES
    if not names and (reason := obstacle()) is not None:
        progress.print(f"{IN_A_BROWSER}: left out. {reason}")
        chosen = tuple(name for name in FIGURES if name != IN_A_BROWSER)
    sizes = TINY if tiny else LONG if long else Sizes()
    began_s = time.monotonic()
    before = machine()
    with Stage(sizes, with_peers=not no_peers) as stage:
        results = [result for name in chosen for result in _measured(name, stage)]
        found = peers() if stage.has_peers else {}
    console.print(terminal_table(results))
    progress.print(f"{len(results)} figures in {time.monotonic() - began_s:.0f} s")
    if json is not None:
        json.write_bytes(as_json(results, machine=before, peers=found))
    if write is not None:
        # What was asked for, without where the answer goes.
        options = [
            option
            for option, given in (("--no-peers", no_peers), ("--tiny", tiny), ("--long", long))
            if given
        ]
        arguments = " ".join([*names, *options])
        command = f'make bench ARGS="{arguments}"' if arguments else "make bench"
        write_page(write, results, machine=before, peers=found, command=command, names=names)
    if any(isinstance(result, Failed) for result in results):
        sys.exit(1)


def _measured(name: str, stage: Stage) -> Iterator[Row | Failed]:
    """The rows of one figure; one that breaks is a row too, and the others go on."""
    began_s = time.monotonic()
    try:
        yield from importlib.import_module(f"bench.figures.{name}").rows(stage)
    except (BenchError, RunglassError, SubprocessError, OSError, ValueError) as error:
        yield Failed(figure=name, reason=str(error))
    progress.print(f"{name}: {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    stand_guard()
    bench()

"""`make prove`: long tests of what Runglass promises when things break; each prints what it tried and found.

Run as `python -m tests.prove [NAME] [OPTIONS]`. Without a name every proof runs at its default size, each in
a process of its own, so that none depends on what another left. The exit code is 1 if anything lied.
"""

import asyncio
import importlib
import inspect
import subprocess
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from runglass.cli.options import CommandGroup
from tests.process_guard import stand_guard

PROOFS = (
    "laws",
    "simulate",
    "fuzz",
    "power",
    "tails",
    "cuts",
    "kill",
    "cluster",
    "rolling",
    "canary",
    "full",
    "ingest",
    "hostile",
)

COUNT = click.IntRange(min=1)
FILE = click.Path(dir_okay=False, path_type=Path)

console = Console(highlight=False, soft_wrap=True)


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.pass_context
def everything(context: click.Context) -> None:
    """Tests what Runglass promises when things break. Without a command: everything, one after another."""
    if context.invoked_subcommand is not None:
        return
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.prove"]
    lied = [name for name in PROOFS if subprocess.run([*command, name], check=False).returncode != 0]
    said = f"in doubt: {', '.join(lied)}" if lied else "nothing lied"
    console.print(f"{len(PROOFS)} proofs in {time.monotonic() - began:.0f} s; {said}")
    sys.exit(1 if lied else 0)


@everything.command()
def laws() -> None:
    """The laws that `make test` tries on some examples, on all of them."""
    prove("laws")


@everything.command()
@click.option("--kills", type=COUNT)
@click.option("--seed", type=int)
def kill(**options: object) -> None:
    """A server is killed under load, again and again: what it acknowledged stays, what was begun ends."""
    prove("kill", **options)


@everything.command()
@click.option("--resumes", type=COUNT)
@click.option("--live-resumes", type=COUNT)
@click.option("--seed", type=int)
def cuts(**options: object) -> None:
    """Streams are cut at every byte: each reader sees every event once and in order."""
    prove("cuts", **options)


@everything.command()
@click.option("--commits", type=COUNT)
@click.option("--seed", type=int)
def power(**options: object) -> None:
    """The power goes at and inside each commit: the file is never corrupt, and lacks nothing."""
    prove("power", **options)


@everything.command()
@click.option("--fast", type=COUNT)
@click.option("--slow", type=COUNT)
@click.option("--events", type=COUNT)
def tails(**options: object) -> None:
    """A thousand readers of one run, some of them slow: memory stays flat."""
    prove("tails", **options)


@everything.command()
@click.option("--seeds", type=COUNT)
@click.option("--first", type=click.IntRange(min=0))
@click.option("--engines", type=COUNT)
def simulate(**options: object) -> None:
    """Engines on one store and a virtual clock, with failures and crashes: the laws of the log hold."""
    prove("simulate", **options)


@everything.command()
@click.option("--seconds", type=click.FloatRange(min=0.1))
def fuzz(**options: object) -> None:
    """Any bytes to the decoder of event streams: no surprise, nothing lost, linear time."""
    prove("fuzz", **options)


@everything.command()
def canary() -> None:
    """Content of runs in every capture mode, on every way: it is where the mode keeps it and nowhere else."""
    prove("canary")


@everything.command()
def full() -> None:
    """A disk is full to the last byte: runs are read and deleted, and the server goes on by itself."""
    prove("full")


@everything.command()
@click.option("--spans", type=COUNT)
@click.option("--kills", type=click.IntRange(min=0))
@click.option("--seed", type=int)
def ingest(**options: object) -> None:
    """Spans of other programs while the server is killed: all that was acknowledged is there, once."""
    prove("ingest", **options)


@everything.command()
@click.option("--seconds", type=click.FloatRange(min=0.1))
@click.option("--only", multiple=True)
@click.option("--family", multiple=True)
@click.option("--store", type=click.Choice(["sqlite", "postgres"]))
@click.option("--json", type=FILE)
@click.option("--before", type=FILE)
def hostile(**options: object) -> None:
    """Attacks of every kind on a server with one well-behaved neighbour, who must hardly notice."""
    prove("hostile", **options)


@everything.command()
@click.option("--faults", type=COUNT)
@click.option("--seed", type=int)
@click.option("--control/--no-control", default=True)
def cluster(**options: object) -> None:
    """Servers and workers on one PostgreSQL, while all of it breaks: nothing acknowledged is lost."""
    prove("cluster", **options)


@everything.command()
@click.option("--seed", type=int)
@click.option("--from", "older", metavar="COMMIT")
def rolling(**options: object) -> None:
    """Each process of a cluster is replaced in turn, under load: no event is lost, no step begun again.

    With --from an older program is replaced by this one, after a migration, and this one by the older again.
    """
    prove("rolling", **options)


def prove(name: str, **options: object) -> None:
    """Runs one proof with the options that were given and prints its report; exits with 1 on a lie."""
    console.rule(f"prove {name}", align="left")
    began = time.monotonic()
    proof = getattr(importlib.import_module(f"tests.prove.{name}"), name)
    try:
        found = proof(**{option: value for option, value in options.items() if value not in (None, ())})
        lines: list[str] = asyncio.run(found) if inspect.iscoroutine(found) else found
    except AssertionError:
        console.print_exception(max_frames=4)
        sys.exit(1)
    for line in lines:
        console.print(line, markup=False)
    console.print(f"{name}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    stand_guard()
    everything()

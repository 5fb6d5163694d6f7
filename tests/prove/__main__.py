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
from typing import Annotated

import typer
from rich.console import Console

PROOFS = ("simulate", "fuzz", "power", "tails", "cuts", "kill", "canary", "hostile")

Count = Annotated[int | None, typer.Option(min=1)]
Seed = Annotated[int | None, typer.Option()]
Seconds = Annotated[float | None, typer.Option(min=0.1)]
Names = Annotated[list[str] | None, typer.Option()]
File = Annotated[Path | None, typer.Option(dir_okay=False)]

app = typer.Typer(add_completion=False, no_args_is_help=False)
console = Console(highlight=False, soft_wrap=True)


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """Tests what Runglass promises when things break. Without a command: everything, one after another."""
    if context.invoked_subcommand is not None:
        return
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.prove"]
    lied = [name for name in PROOFS if subprocess.run([*command, name], check=False).returncode != 0]
    said = f"in doubt: {', '.join(lied)}" if lied else "nothing lied"
    console.print(f"{len(PROOFS)} proofs in {time.monotonic() - began:.0f} s; {said}")
    raise typer.Exit(1 if lied else 0)


@app.command()
def kill(kills: Count = None, seed: Seed = None) -> None:
    """A server is killed under load, again and again: what it acknowledged stays, what was begun ends."""
    prove("kill", kills=kills, seed=seed)


@app.command()
def cuts(resumes: Count = None, live_resumes: Count = None, seed: Seed = None) -> None:
    """Streams are cut at every byte: each reader sees every event once and in order."""
    prove("cuts", resumes=resumes, live_resumes=live_resumes, seed=seed)


@app.command()
def power(commits: Count = None, seed: Seed = None) -> None:
    """The power goes at and inside each commit: the file is never corrupt, and lacks nothing."""
    prove("power", commits=commits, seed=seed)


@app.command()
def tails(fast: Count = None, slow: Count = None, events: Count = None) -> None:
    """A thousand readers of one run, some of them slow: memory stays flat."""
    prove("tails", fast=fast, slow=slow, events=events)


@app.command()
def simulate(seeds: Count = None, first: Annotated[int | None, typer.Option(min=0)] = None) -> None:
    """The engine on a virtual clock, with failures, cancellations and crashes: the laws of the log hold."""
    prove("simulate", seeds=seeds, first=first)


@app.command()
def fuzz(seconds: Seconds = None) -> None:
    """Any bytes to the decoder of event streams: no surprise, nothing lost, linear time."""
    prove("fuzz", seconds=seconds)


@app.command()
def canary() -> None:
    """Content of runs in every capture mode, on every way: it is where the mode keeps it and nowhere else."""
    prove("canary")


@app.command()
def hostile(
    seconds: Seconds = None,
    only: Names = None,
    family: Names = None,
    json: File = None,
    before: File = None,
) -> None:
    """Attacks of every kind on a server with one well-behaved neighbour, who must hardly notice."""
    prove("hostile", seconds=seconds, only=only or None, family=family or None, json=json, before=before)


def prove(name: str, **options: object) -> None:
    """Runs one proof with the options that were given and prints its report; exits with 1 on a lie."""
    console.rule(f"prove {name}", align="left")
    began = time.monotonic()
    proof = getattr(importlib.import_module(f"tests.prove.{name}"), name)
    try:
        found = proof(**{option: value for option, value in options.items() if value is not None})
        lines: list[str] = asyncio.run(found) if inspect.iscoroutine(found) else found
    except AssertionError:
        console.print_exception(max_frames=4)
        raise typer.Exit(1) from None
    for line in lines:
        console.print(line, markup=False)
    console.print(f"{name}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    app()

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
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from runglass.cli.options import CommandGroup
from tests.process_guard import stand_guard

PROOFS: dict[str, tuple[str, str]] = {
    "laws": ("The laws that `make test` tries on some examples, on all of them.", ""),
    "simulate": (
        "Engines on one store and a virtual clock, with failures and crashes: the laws of the log hold.",
        "--seeds --first --engines",
    ),
    "fuzz": ("Any bytes to the decoders of event streams and OTLP: no surprise, nothing lost.", "--seconds"),
    "power": (
        "The power goes at and inside each commit: the file is never corrupt, and lacks nothing.",
        "--commits --seed",
    ),
    "tails": (
        "A thousand readers of one run, some of them slow: memory stays flat.",
        "--fast --slow --events",
    ),
    "cuts": (
        "Streams are cut at every byte: each reader sees every event once and in order.",
        "--resumes --live-resumes --seed",
    ),
    "kill": (
        "A server is killed under load, again and again: what it acknowledged stays, what was begun ends.",
        "--kills --seed",
    ),
    "cluster": (
        "Servers and workers on one PostgreSQL, while all of it breaks: nothing acknowledged is lost.",
        "--faults --seed --control/--no-control",
    ),
    "rolling": (
        "Each process of a cluster is replaced in turn, under load: no event is lost, no step begun again."
        " With --from, an older program is replaced by this one, after a migration, and this by the older.",
        "--seed --from",
    ),
    "canary": ("Content of runs in every capture mode: it is where the mode keeps it and nowhere else.", ""),
    "full": ("A disk is full: runs are read and deleted, and the server goes on by itself.", ""),
    "ingest": (
        "Spans of other programs while the server is killed: all that was acknowledged is there, once.",
        "--spans --kills --seed",
    ),
    "hostile": (
        "Attacks of every kind on a server with one well-behaved neighbour, who must hardly notice.",
        "--seconds --only --family --store --json",
    ),
}
"""What each shows, and its options, in the order in which all are run."""
COUNTS = "--seeds --engines --commits --fast --slow --events --resumes --live-resumes --faults --spans"
OPTIONS: dict[str, dict[str, Any]] = {
    **{flag: {"type": click.IntRange(min=1)} for flag in COUNTS.split()},
    **{flag: {"type": click.IntRange(min=0)} for flag in ("--first", "--kills")},
    **{flag: {"multiple": True} for flag in ("--only", "--family")},
    "--json": {"type": click.Path(dir_okay=False, path_type=Path)},
    "--seed": {"type": int},
    "--seconds": {"type": click.FloatRange(min=0.1)},
    "--store": {"type": click.Choice(["sqlite", "postgres"])},
    "--control/--no-control": {"default": True},
    "--from": {"metavar": "COMMIT"},
}

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


for _name, (_shows, _flags) in PROOFS.items():
    _command = click.Command(_name, callback=partial(prove, _name), help=_shows)
    for _flag in _flags.split():
        # `from` is no name that an argument may have.
        _names = [_flag, "older"] if _flag == "--from" else [_flag]
        _command.params.append(click.Option(_names, **OPTIONS[_flag]))
    everything.add_command(_command)

if __name__ == "__main__":
    stand_guard()
    everything()

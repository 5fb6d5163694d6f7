"""Writes `demo-trace.md`: what `runglass demo` shows of its trace, as it came out on this machine.

Run `make reference` after a change of the demo; a test compares what does not depend on the machine.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).with_name("demo-trace.md")
BEGIN, END = "The trace\n", "\nAnd runs of other kinds"
WIDTH = 110

INTRODUCTION = """\
# The trace of the demo

`make demo` reads a story through a flow with every kind of step and shows the run's tree on the time axis.
One code step fails on its first attempt, the branch not taken is skipped, and most iterations of the loop are
folded. Written by `make reference`, with long texts cut; only times differ from yours.

"""


def trace_of_demo() -> str:
    """The part of the demo's output that shows the trace."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNGLASS_")}
        done = subprocess.run(
            [sys.executable, "-m", "runglass", "demo"],
            cwd=folder,
            env=environment | {"COLUMNS": str(WIDTH), "NO_COLOR": "1"},
            capture_output=True,
            check=True,
            timeout=60,
        )
    output = done.stdout.decode()
    lines = output[output.index(BEGIN) + len(BEGIN) : output.index(END)].split("\n")
    return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(f"{INTRODUCTION}```\n{trace_of_demo()}```\n", encoding="utf-8")

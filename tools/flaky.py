"""Runs the tests ten times, twice beside busy processes, and lists those that did not end the same each time.

The arguments are pytest's. The exit code is 0 only where every test passed in every run.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from xml.etree import ElementTree

RUNS = 10
BUSY_RUNS = frozenset({4, 8})


def main(arguments: list[str]) -> int:
    outcomes: dict[str, list[str]] = defaultdict(list)
    failed_runs = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, RUNS + 1):
            report = Path(folder, f"{number}.xml")
            command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
            began_s = time.monotonic()
            with busy_processors() if number in BUSY_RUNS else nullcontext():
                ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            seconds = time.monotonic() - began_s
            beside = ", beside busy processes" if number in BUSY_RUNS else ""
            say(f"run {number} of {RUNS}: {seconds:.0f} s{beside}; {last_line(ended.stdout)}")
            failed_runs += ended.returncode != 0
            for case in ElementTree.parse(report).iter("testcase"):
                outcomes[f"{case.get('classname')}::{case.get('name')}"].append(outcome(case))
    steady = ({"passed"}, {"skipped"})
    changing = {test: ends for test, ends in outcomes.items() if len(ends) != RUNS or set(ends) not in steady}
    for test, ends in sorted(changing.items()):
        say(f"{test}: {', '.join(f'{ends.count(end)} {end}' for end in sorted(set(ends)))}")
    say(f"{len(outcomes)} tests, {failed_runs} red runs, {len(changing)} tests not the same or not passed")
    return 1 if failed_runs or changing else 0


def say(line: str) -> None:
    """Each line is there at once: a run takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def outcome(case: ElementTree.Element) -> str:
    """How a test of a report ended."""
    return next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip("= ")


@contextmanager
def busy_processors() -> Iterator[None]:
    """A process for each processor that does nothing but take its time."""
    loop = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(loop) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The bench itself: every figure can be measured, and a machine without peers is told so."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from bench import long_runs, nested
from bench.__main__ import FIGURES, IN_A_BROWSER
from runglass.config.settings import Settings
from runglass.store.sqlite import database_file

ROOT = Path(__file__).resolve().parents[2]


def test_every_figure_is_measured_and_says_which_peers_are_missing(tmp_path: Path) -> None:
    assert _measured(tmp_path, *(name for name in FIGURES if name != IN_A_BROWSER)) > 30


def test_figures_on_postgres_are_measured_on_a_server_of_their_own(tmp_path: Path) -> None:
    # The others wait for leases to run out, or follow a run for seconds.
    assert _measured(tmp_path, "steps_on_postgres", "claims", "flood") > 7


def _measured(folder: Path, *names: str) -> int:
    """Measures these figures; how many rows they have come to, each of them in the page as well."""
    page, numbers = folder / "performance.md", folder / "bench.json"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n", encoding="utf-8")
    done = _bench(*names, "--tiny", "--no-peers", "--json", numbers, "--write", page)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    figures: list[dict[str, Any]] = msgspec.json.decode(numbers.read_bytes())["figures"]
    assert all(figure["ours"] for figure in figures)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- bench: begin -->\n")
    assert text.endswith("<!-- bench: end -->\nafter\n")
    assert "old" not in text.split("<!-- bench: begin -->")[1].split("|")[0]
    for figure in figures:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {figure['figure']} |")]
        assert figure["unit"] in line
        if figure["missing"]:
            assert f"{figure['missing'][0]} not installed" in line
    return len({figure["figure"] for figure in figures})


def test_a_figure_that_does_not_exist_is_refused_with_those_that_do() -> None:
    done = _bench("speed")
    assert done.returncode == 2
    assert b"decode_trace" in done.stderr


def _bench(*arguments: str | Path) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, timeout=300, check=False
    )


def test_a_run_that_is_repeated_is_what_its_log_adds_up_to(tmp_path: Path) -> None:
    steps, most_executed = 8 * nested.BATCH_STEPS, 2 * nested.BATCH_STEPS
    run = long_runs.finished_run(tmp_path, steps, most_executed=most_executed)
    going = long_runs.going_run(tmp_path, steps, waits=1000, most_executed=most_executed)
    database = Settings(data=tmp_path).database
    assert database_file.check(database, every_run=True, tell=lambda done, of: None) == (2, 2, [])
    with closing(sqlite3.connect(database)) as connection:
        counts = dict(
            connection.execute("SELECT id, count(*) FROM run JOIN step ON run_no = no GROUP BY id").fetchall()
        )
    assert counts[run.run_id] == steps
    assert counts[going] > steps

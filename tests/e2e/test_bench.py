"""The bench itself: every figure can be measured, and a machine without peers is told so."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[2]


def test_every_figure_is_measured_and_says_which_peers_are_missing(tmp_path: Path) -> None:
    page, numbers = tmp_path / "performance.md", tmp_path / "bench.json"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--tiny", "--no-peers", "--json", numbers, "--write", page],
        cwd=ROOT,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    figures: list[dict[str, Any]] = msgspec.json.decode(numbers.read_bytes())["figures"]
    names = [figure["figure"] for figure in figures]
    assert len(set(names)) == len(names) > 30
    assert all(figure["ours"] for figure in figures)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("<!-- bench: end -->\nafter\n")
    assert "old" not in text.split("<!-- bench: begin -->")[1].split("|")[0]
    for figure in figures:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {figure['figure']} |")]
        assert figure["unit"] in line
        if figure["missing"]:
            assert f"{figure['missing'][0]} not installed" in line


def test_a_figure_that_does_not_exist_is_refused_with_those_that_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "speed"], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert b"decode_trace" in done.stderr

"""`prove laws`: each law that `make test` tries on some examples is tried on all of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.examples import ALL, VARIABLE

ROOT = Path(__file__).parents[2]


def law_files() -> list[Path]:
    """The test files in which a law has more examples than `make test` tries."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return [file for file in found if "from tests.examples import" in file.read_text(encoding="utf-8")]


def laws() -> list[str]:
    """A line about what was tried. Raises AssertionError with what pytest says of a law that is broken."""
    files = law_files()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--timeout", "0", *map(str, files)],
        cwd=ROOT,
        env={**os.environ, VARIABLE: ALL},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"\d+ passed", done.stdout)
    assert passed is not None, done.stdout[-5000:]
    return [f"laws: {passed[0]} in {len(files)} files, each law on all its examples"]

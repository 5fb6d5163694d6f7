"""How large each room of the package is, and whether it keeps to its budget of lines: `make check` runs it.

A room is a folder, without the rooms inside it. The budgets are in `pyproject.toml` under `tool.rooms`: the
lines of the room when its budget was written, and two per cent. Whoever needs more says why in the commit
that raises it; a budget is lowered when its room has become much smaller. Files that `tools/twins.py` writes
are not counted: nobody edits them.
"""

import ast
import sys
import tomllib
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GENERATED = "# Written from "


class Room(NamedTuple):
    """A folder, measured; `names` counts what others may import from its modules."""

    name: str
    files: int
    lines: int
    median_lines: float
    names: int


def measured(package: Path) -> list[Room]:
    """The rooms of a package, in the order of their names."""
    rooms = []
    for folder in sorted({file.parent for file in package.rglob("*.py")}):
        texts = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))]
        texts = [text for text in texts if not text.startswith(GENERATED)]
        sizes = [len(text.splitlines()) for text in texts]
        names = sum(len(public_names(ast.parse(text))) for text in texts)
        name = folder.relative_to(package).as_posix()
        rooms.append(Room(name, len(texts), sum(sizes), median(sizes), names))
    return rooms


def public_names(module: ast.Module) -> set[str]:
    """The functions, classes and constants of a module, without those that it imports."""
    found: set[str] = set()
    for node in module.body:
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                found.add(name)
            case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
                found.add(name)
    return {name for name in found if not name.startswith("_")}


def main(package: Path) -> int:
    """Prints the table; returns 1 where a room is over its budget, or has none, or is gone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    budgets: dict[str, int] = project["tool"]["rooms"]
    rooms = measured(package)
    lines = [f"{'room':<26} {'files':>5} {'lines':>6} {'median':>6} {'names':>5} {'budget':>6}"]
    wrong = [
        f"{name} is gone: take out its budget" for name in budgets.keys() - {room.name for room in rooms}
    ]
    for room in rooms:
        budget = budgets.get(room.name, 0)
        figures = f"{room.files:>5} {room.lines:>6} {room.median_lines:>6.0f} {room.names:>5} {budget:>6}"
        lines.append(f"{room.name:<26} {figures}")
        if room.lines > budget:
            wrong.append(
                f"{room.name} has {room.lines} lines and a budget of {budget}; make room, or say why not"
            )
    sums = [sum(getattr(room, field) for room in rooms) for field in ("files", "lines", "names")]
    lines.append(f"{'all':<26} {sums[0]:>5} {sums[1]:>6} {'':>6} {sums[2]:>5}")
    sys.stdout.write("\n".join([*lines, *wrong]) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:]) if sys.argv[1:] else ROOT / "src" / "runglass"))

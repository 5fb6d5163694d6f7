"""What rows have sent once, as files: `make test` sends it again."""

import gzip
import json
import sys
from pathlib import Path

from tests.emitters import capture, ledger
from tests.emitters.capture import Export
from tests.emitters.running import Case, Ran

FOLDER = Path(__file__).parents[1] / "fixtures" / "otlp"
ROOT = Path(__file__).parents[2]


def write(row: str, ran: Ran) -> None:
    """Files what a row sent, in place of what it sent before."""
    folder = FOLDER / row
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    about = {"versions": ran.versions, "cannot": ran.cannot}
    (folder / "row.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    for case in ran.cases:
        capture.write(folder / f"{case.name}.zip", [_neutral(export) for export in case.exports])
        ledger.write(folder / f"{case.name}.jsonl", case.calls)


def read(row: str) -> Ran:
    """What a row has sent."""
    folder = FOLDER / row
    about = json.loads((folder / "row.json").read_text("utf-8"))
    cases = [
        Case(file.stem, ledger.read(file), capture.read(file.with_suffix(".zip")), [], None)
        for file in sorted(folder.glob("*.jsonl"))
    ]
    return Ran(about["versions"], about["cannot"], cases)


def names() -> list[str]:
    """The rows that have files."""
    return sorted(folder.name for folder in FOLDER.iterdir())


def _neutral(export: Export) -> Export:
    """The same without the folders of this machine, which stack traces name; no length changes."""
    is_packed = export.headers.get("Content-Encoding") == "gzip"
    body = gzip.decompress(export.body) if is_packed else export.body
    for folder in (str(ROOT), sys.base_prefix, str(Path.home())):
        if len(folder) > 4:
            body = body.replace(folder.encode(), b"/usr/" + b"x" * (len(folder) - 5))
    return export._replace(body=gzip.compress(body, 9, mtime=0) if is_packed else body)

"""Rows of outlines as people read them."""

from typing import Any

import msgspec

from runglass.outlines.outline import OutlinePage

Row = dict[str, Any]


def rows_in(page: bytes) -> list[Row]:
    """The rows of an answer as objects, with words in place of numbers."""
    found = msgspec.json.decode(page, type=OutlinePage, strict=True)
    columns = msgspec.to_builtins(found.columns)
    rows: list[Row] = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    for row in rows:
        row["kind"], row["status"] = found.kinds[row["kind"]], found.statuses[row["status"]]
        row["name"] = found.names[row["name"]]
    return rows


def lines_of(rows: list[Row], *columns: str) -> list[str]:
    """Each row as `INDENT name[index]#attempt`, with these columns behind it."""
    return [
        "  " * row["depth"]
        + row["name"]
        + (f"[{row['index']}]" if row["index"] >= 0 else "")
        + (f"#{row['attempt']}" if row["attempt"] else "")
        + "".join(f" {row[column]}" for column in columns)
        for row in rows
    ]

"""The table: for a terminal, for a page of the documentation, and as JSON for machines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from bench.rows import Failed, Goal, Row

HEAD = ("figure", "ours", "peer", "limit", "over peer", "of limit", "target", "met")
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def terminal_table(results: Sequence[Row | Failed]) -> Table:
    """As people read it."""
    table = Table(*HEAD, title="median of each side", title_justify="left", pad_edge=False)
    for column in table.columns[1:-2]:
        column.justify = "right"
    for result in results:
        table.add_row(*_cells(result), style="" if _fine(result) else "bold")
    return table


def write_page(
    path: Path,
    results: Sequence[Row | Failed],
    *,
    machine: Mapping[str, str],
    peers: Mapping[str, str],
    command: str,
    names: Sequence[str] = (),
) -> None:
    """Puts the table between the marks of a page. Raises ValueError if the page has none.

    A figure that was measured alone, by its name, goes between marks of its own where the page has them.
    """
    text = path.read_text(encoding="utf-8")
    begin, end = BEGIN, END
    if len(names) == 1 and (own := BEGIN.replace("bench", f"bench {names[0]}")) in text:
        begin, end = own, END.replace("bench", f"bench {names[0]}")
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise ValueError(f"{path.name!r} has no {begin} and {end}: add them where the table belongs")
    notes = list(dict.fromkeys(row.note for row in results if isinstance(row, Row) and row.note))
    lines = [
        f"`{command}` on " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
        "Peers: " + (", ".join(f"{name} {value}" for name, value in peers.items()) or "none installed") + ".",
        "",
        _line([*HEAD, "note"]),
        _line(["---"] + ["---:"] * 5 + ["---"] * 3),
        *(_line([*_cells(result), _number_of_note(result, notes)]) for result in results),
        "",
        *(f"{number}. {note[0].upper()}{note[1:]}." for number, note in enumerate(notes, 1)),
    ]
    made = "\n".join(lines).rstrip()
    path.write_text(f"{before}{begin}\n{made}\n{end}{after}", encoding="utf-8")


def as_json(
    results: Sequence[Row | Failed], *, machine: Mapping[str, str], peers: Mapping[str, str]
) -> bytes:
    """Every sample, and what was made of them."""
    figures: list[dict[str, Any]] = []
    for result in results:
        figure = msgspec.to_builtins(result)
        if isinstance(result, Row):
            figure |= {
                "peers": {name: samples for name, samples in result.peers.items() if samples},
                "missing": result.missing,
                "value": result.our_value,
                "overPeer": result.over_peer,
                "ofLimit": result.of_limit,
                "met": result.verdict,
            }
        figures.append(figure)
    whole = {"machine": machine, "peers": peers, "figures": figures}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def _fine(result: Row | Failed) -> bool:
    return isinstance(result, Row) and result.verdict in ("yes", "")


def _cells(result: Row | Failed) -> list[str]:
    if isinstance(result, Failed):
        return [result.figure, "failed", "", "", "", "", result.reason, "no"]
    peer = result.best_peer
    return [
        result.figure,
        f"{_number(result.our_value)} {result.unit}",
        f"{_number(peer[1])} {peer[0]}"
        if peer
        else " ".join(f"{name} not installed" for name in result.missing[:1]),
        "" if result.limit_value is None else _number(result.limit_value),
        "" if result.over_peer is None else f"{_number(result.over_peer)}x",
        "" if result.of_limit is None else f"{_number(result.of_limit)}x",
        _target(result, result.goal),
        result.verdict,
    ]


def _target(row: Row, goal: Goal) -> str:
    parts = []
    if goal.at is not None:
        parts.append(f"{'≤' if row.better == 'less' else '≥'} {_number(goal.at)} {row.unit}")
    if goal.of_limit is not None:
        parts.append(f"{goal.of_limit:g}x limit")
    if goal.over_peer is not None:
        parts.append(f"{goal.over_peer:g}x peer")
    return ", ".join(parts)


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number_of_note(result: Row | Failed, notes: Sequence[str]) -> str:
    return str(notes.index(result.note) + 1) if isinstance(result, Row) and result.note else ""

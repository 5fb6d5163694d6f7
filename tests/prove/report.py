"""How a proof tells what it has seen."""

from collections import Counter


def lines(seen: Counter[str]) -> list[str]:
    """A line for each kind of what was seen, which is counted as `kind: name`."""
    kinds: dict[str, list[str]] = {}
    for name, count in sorted(seen.items()):
        kind, is_of_kind, what = name.partition(": ")
        if is_of_kind:
            kinds.setdefault(kind, []).append(f"{count:,} {what}")
    return [f"{kind}: {', '.join(counted)}" for kind, counted in kinds.items()]

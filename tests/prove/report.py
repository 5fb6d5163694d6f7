"""How a proof tells what it has seen, and what is wrong with that."""

from collections import Counter
from collections.abc import Iterable


def lines(seen: Counter[str]) -> list[str]:
    """A line for each kind of what was seen, which is counted as `kind: name`."""
    kinds: dict[str, list[str]] = {}
    for name, count in sorted(seen.items()):
        kind, is_of_kind, what = name.partition(": ")
        if is_of_kind:
            kinds.setdefault(kind, []).append(f"{count:,} {what}")
    return [f"{kind}: {', '.join(counted)}" for kind, counted in kinds.items()]


def judge(lies: Iterable[str], place: str, said: str = "") -> None:
    """Raises AssertionError with the first lies, if there are any, and what the server said."""
    found = list(lies)
    if found:
        said = f"\nthe server said:\n{said}" if said else ""
        raise AssertionError("\n".join([f"{place}: {len(found)} lies", *found[:20]]) + said)

"""How a proof tells what it has seen."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def lines(seen: Counter[str]) -> list[str]:
    """A line for each kind of what was seen, which is counted as `kind: name`."""
    kinds: dict[str, list[str]] = {}
    for name, count in sorted(seen.items()):
        kind, is_of_kind, what = name.partition(": ")
        if is_of_kind:
            kinds.setdefault(kind, []).append(f"{count:,} {what}")
    return [f"{kind}: {', '.join(counted)}" for kind, counted in kinds.items()]


@contextmanager
def noted(lines: Sequence[str]) -> Iterator[None]:
    """Adds the lines to a failure, as they are then: what was tried, or what went on."""
    try:
        yield
    except Exception as error:
        error.add_note("\n".join(lines))
        raise


@contextmanager
def as_one_lie() -> Iterator[None]:
    """Raises AssertionError with the first failure of a group of tasks; the others were cut short."""
    try:
        yield
    except ExceptionGroup as failures:
        first = failures.exceptions[0]
        notes: list[str] = getattr(first, "__notes__", [])
        raise AssertionError("\n".join([f"{type(first).__name__}: {first}", *notes])) from failures

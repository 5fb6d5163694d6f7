"""A path into the names of a step, like `steps.fetch.items[0]`: looked up here, without an interpreter.

Most templates and expressions are no more than such a path, and the values at their ends can be megabytes
large. Knows neither templates nor Python: both bring the path along in parts.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Path(NamedTuple):
    """`root` is a name; each step a key of an object or an index of a list."""

    root: str
    steps: tuple[str | int, ...] = ()


class _Nowhere:
    """Where a path leads that cannot be followed to its end."""


NOWHERE: Final = _Nowhere()


def look_up(path: Path, names: Mapping[str, Any]) -> Any:
    """The value itself, not a copy, or `NOWHERE`: evaluating the whole expression then tells why."""
    value: Any = names.get(path.root, NOWHERE)
    for step in path.steps:
        try:
            # Only what JSON is made of: an index of a string is a matter for the evaluator.
            value = value[step] if isinstance(value, dict | list) else NOWHERE  # type: ignore[index]
        except (LookupError, TypeError):
            return NOWHERE
    return value

"""How names in requests may be spelled, and which unknown names are misspelt known ones.

Bodies and queries share this rule: an unknown name is ignored, but one that is a misspelt known name is
refused, since a parameter lost to a typo would run or show the wrong thing. Must not know what a name stands
for.
"""

import difflib
import re
from collections.abc import Collection, Iterable
from itertools import islice

from runglass.errors import api_error

MAX_COMPARED = 100
"""The most unknown names that are compared. A request may hold a million of them."""

NEAR = 0.9
"""The least similarity of a misspelt name: `accumulatedOutputs` may have two typos, `message` one."""

_UNDERSCORE = re.compile(r"_([a-z])")


def camel(name: str) -> str:
    """`loop_index` as `loopIndex`; other names as they are."""
    return _UNDERSCORE.sub(lambda match: match[1].upper(), name)


def near_miss(name: str, known: Iterable[str]) -> str | None:
    """The known name of which `name` is a misspelling; None if no known name is near."""
    plain = _plain(name)
    return next((other for other in known if _near(plain, _plain(other))), None)


def refuse_slips(names: Iterable[str], known: Collection[str], *, kind: str) -> None:
    """Raises INVALID_REQUEST for the first of the unknown names that is a misspelling of a known one."""
    for name in islice((name for name in names if name not in known), MAX_COMPARED):
        if (meant := near_miss(name, known)) is not None:
            raise api_error("INVALID_REQUEST", f"`{name}`: unknown {kind}; did you mean {meant!r}?")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _near(name: str, other: str) -> bool:
    # difflib takes quadratic time, and a name so much longer is no misspelling.
    if abs(len(name) - len(other)) > len(other) // 4:
        return False
    return _one_slip(name, other) or difflib.SequenceMatcher(None, name, other).ratio() >= NEAR


def _one_slip(name: str, other: str) -> bool:
    """Whether at most one letter is missing, wrong or too many, or two neighbours have changed places."""
    shorter = min(len(name), len(other))
    start = next((at for at in range(shorter) if name[at] != other[at]), shorter)
    name, other = name[start:], other[start:]
    if name[1:] == other[1:] or name[1:] == other or name == other[1:]:
        return True
    return name[1::-1] == other[:2] and name[2:] == other[2:]

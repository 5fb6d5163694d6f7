"""Which earlier outputs a step mentions, so that large ones are read and decoded for no other step.

Names get into templates and code only where these spell them out, so a name that is not spelled is not used.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from runglass.flows.flow import Step
from runglass.flows.syntax import referring_attributes
from runglass.support.byte_cache import ByteCache

_USE = re.compile(
    r"(?<!\w)steps(?!\w)(?:\s*\.\s*([A-Za-z_]\w*)(?!\w|\s*\()|\s*\[\s*([\"'])([^\"'\\]*)\2\s*\])?"
)
"""A use of `steps`, followed by an item of it or by anything else."""


def mentioned_outputs(step: Step) -> frozenset[str] | None:
    """The ids whose outputs the step may use; None where it may use any."""
    texts = [text for name in referring_attributes(type(step)) for text in _strings(getattr(step, name))]
    return _mentioned("\0".join(texts).encode(errors="surrogatepass"))


def _read(encoded: bytes) -> frozenset[str] | None:
    text = encoded.decode(errors="surrogatepass")
    ids = set()
    # Python reads names in this normal form.
    for match in _USE.finditer(text if text.isascii() else unicodedata.normalize("NFKC", text)):
        found = match[1] or match[3]
        if not found or hasattr(dict, found):
            return None
        ids.add(found)
    return frozenset(ids)


# In bytes, as callers may send texts of a megabyte.
_mentioned = ByteCache(_read, times=2, share=0.01)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)

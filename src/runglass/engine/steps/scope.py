"""The names that a step sees, and which of the large outputs behind them it mentions.

Names get into templates and code only where these spell them out, so a name that is not spelled is not used:
large outputs are read and decoded for no other step.
"""

import re
import unicodedata
from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, cast

from runglass.engine.payload import Payload
from runglass.engine.run_memory import value_of
from runglass.flows.flow import ForwardingStep, Step
from runglass.flows.syntax import referring_attributes
from runglass.support.byte_cache import ByteCache

MANY_NAMES = 1000
"""More of an input are not copied for each step, which would take milliseconds of the event loop."""


class _Layers(ChainMap[str, Any]):
    """Names in several dicts, of which none is copied or changed."""

    def clear(self) -> None:
        self.maps = [{}]


class _Seen:
    """Whether any scope of a run has kept a large output: most runs have none, and need not look for them."""

    __slots__ = ("large",)

    def __init__(self) -> None:
        self.large = False


class Scope:
    """The names that steps see: outputs of this iteration and of those around it, loop names, inputs."""

    __slots__ = ("_inputs", "_large", "_loop_names", "_outer", "_outputs", "seen")

    def __init__(self, inputs: Mapping[str, Any], outer: "Scope | None" = None) -> None:
        self._inputs = inputs
        self._outer = outer
        self.seen: _Seen = _Seen() if outer is None else outer.seen
        self._outputs: dict[str, Any] = {}
        self._large: dict[str, Payload] = {}
        self._loop_names: dict[str, Any] = {}

    def iteration(self, loop_names: Mapping[str, Any]) -> "Scope":
        """The scope of one iteration: outputs that it keeps are not seen outside of it."""
        inner = Scope(self._inputs, self)
        inner._loop_names = {**self._loop_names, **loop_names}
        return inner

    def keep(self, step_id: str, output: Payload) -> None:
        """Shows the output of a step from now on; a large one is held as JSON, or not in memory at all."""
        if output.holding is None:
            self._outputs[step_id] = output.value
        else:
            self._large[step_id] = output
            self.seen.large = True

    def names(
        self, data: Mapping[str, Any] | None, *, attempt: int = 1, large: Mapping[str, Any] | None = None
    ) -> MutableMapping[str, Any]:
        """The names for a step whose input is `data`; nearer ones hide farther ones.

        Of the large outputs those are seen whose values are given.
        """
        outputs = self._outputs if self._outer is None else self._all_outputs()
        steps = {**outputs, **large} if large else outputs
        if data is not None and len(data) > MANY_NAMES:
            around = {"initial": self._inputs, "steps": steps, "attempt": attempt, **self._loop_names}
            # An input is JSON, and so a dict.
            return _Layers(cast(dict[str, Any], data), around)
        return {
            "initial": self._inputs,
            "steps": steps,
            "attempt": attempt,
            **self._loop_names,
            **(data or {}),
        }

    def outputs(self) -> dict[str, Any]:
        """The outputs by step id that are seen here, the large ones left out."""
        return dict(self._all_outputs())

    def large(self) -> dict[str, Payload]:
        """The large outputs by step id that are seen here."""
        if not self.seen.large:
            return self._large
        outer = self._outer.large() if self._outer else None
        return {**outer, **self._large} if outer else self._large

    def _all_outputs(self) -> dict[str, Any]:
        return {**self._outer._all_outputs(), **self._outputs} if self._outer else self._outputs


def uses_names(step: Step) -> bool:
    """Whether the step has anything that names are put into; a forwarding one has at most its `input`."""
    return step.input is not None or not isinstance(step, ForwardingStep)


def needed_by(step: Step, data: Payload, scope: Scope) -> list[Payload]:
    """The large payloads that must be in memory for the step: its input, and outputs that it mentions."""
    needed = list(_mentioned_large(step, scope).values()) if uses_names(step) else []
    return needed if data.holding is None or data in needed else [data, *needed]


async def names_for(step: Step, data: Payload, scope: Scope, *, attempt: int = 1) -> MutableMapping[str, Any]:
    """The names that the step sees, inside of a block that uses what it needs."""
    value = data.value if data.holding is None else await value_of(data)
    if not scope.seen.large:
        return scope.names(value, attempt=attempt)
    values = {name: await value_of(output) for name, output in _mentioned_large(step, scope).items()}
    return scope.names(value, attempt=attempt, large=values)


def _mentioned_large(step: Step, scope: Scope) -> dict[str, Payload]:
    large = scope.large()
    mentioned = mentioned_outputs(step) if large else None
    if mentioned is None:
        return large
    return {name: output for name, output in large.items() if name in mentioned}


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

"""Where in a flow a step runs, and which names it sees there."""

from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple, cast

from runglass.engine.payload import Payload

MANY_NAMES = 1000
"""More of an input are not copied for each step, which would take milliseconds of the event loop."""


class StepPosition(NamedTuple):
    """Where in the flow: position of the top-level step, loop iterations around, outermost first."""

    step_index: int
    loop_path: tuple[int, ...] | None = None

    @property
    def loop_index(self) -> int | None:
        return self.loop_path[-1] if self.loop_path else None

    def iteration(self, index: int) -> "StepPosition":
        return StepPosition(self.step_index, (*(self.loop_path or ()), index))


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

    def __init__(self, inputs: Mapping[str, Any], outer: "Scope | None" = None) -> None:
        self._inputs = inputs
        self._outer = outer
        self._seen: _Seen = _Seen() if outer is None else outer._seen
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
            self._seen.large = True

    def names(
        self, data: Mapping[str, Any] | None, *, attempt: int = 1, large: Mapping[str, Any] | None = None
    ) -> MutableMapping[str, Any]:
        """The names for a step whose input is `data`; nearer ones hide farther ones.

        Of the large outputs those are seen whose values are given.
        """
        outputs = self._all_outputs()
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
        if not self._seen.large:
            return self._large
        outer = self._outer.large() if self._outer else None
        return {**outer, **self._large} if outer else self._large

    def _all_outputs(self) -> dict[str, Any]:
        return {**self._outer._all_outputs(), **self._outputs} if self._outer else self._outputs

"""The names for one step, and which large outputs must be in memory for them."""

from collections.abc import MutableMapping
from typing import Any

from runglass.engine.payload import Payload
from runglass.engine.sandbox.references import mentioned_outputs
from runglass.engine.scheduling.memory_budget import value_of
from runglass.engine.scope import Scope
from runglass.flows.flow import ForwardingStep, Step


def uses_names(step: Step) -> bool:
    """Whether the step has anything that names are put into; a forwarding one has at most its `input`."""
    return step.input is not None or not isinstance(step, ForwardingStep)


def needed_by(step: Step, data: Payload, scope: Scope) -> list[Payload]:
    """The large payloads that must be in memory for the step: its input, and outputs that it mentions."""
    large = scope.large() if uses_names(step) else None
    if not large:
        return [] if data.holding is None else [data]
    mentioned = mentioned_outputs(step)
    needed = [output for name, output in large.items() if mentioned is None or name in mentioned]
    return needed if data.holding is None or data in needed else [data, *needed]


async def names_for(step: Step, data: Payload, scope: Scope, *, attempt: int = 1) -> MutableMapping[str, Any]:
    """The names that the step sees, inside of a block that uses what it needs."""
    value = data.value if data.holding is None else await value_of(data)
    if not (large := scope.large()):
        return scope.names(value, attempt=attempt)
    mentioned = mentioned_outputs(step)
    values = {
        name: await value_of(output)
        for name, output in large.items()
        if mentioned is None or name in mentioned
    }
    return scope.names(value, attempt=attempt, large=values)

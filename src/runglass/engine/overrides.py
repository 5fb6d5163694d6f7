"""What a call set anew for its run, told in the trace: names always, values where content is kept."""

from typing import Any

import msgspec

from runglass.engine.capture import Capture
from runglass.engine.payload import Payload
from runglass.engine.plan import Begun
from runglass.events import OverridesApplied
from runglass.trace import RunSummary

MOST_NAMES = 100


def overrides_applied(
    run_id: str, begun: Begun, capture: Capture, *, known: RunSummary
) -> OverridesApplied | None:
    """The event that tells the overrides of a call; None where it has none, or none that is not `known`."""
    blocks, inputs = begun.stretch.block_overrides, _inputs(begun)
    # Under `off` the names of a caller's inputs are not told either.
    shown = inputs if capture.mode != "off" else {}
    names = [f"{step}.{field}" for step, fields in blocks.items() for field in fields]
    names += [f"{step}.input.{field}" for step, fields in shown.items() for field in fields]
    if not names:
        return None
    if len(names) > MOST_NAMES:
        names = [*names[:MOST_NAMES], f"… and {len(names) - MOST_NAMES} more"]
    event = OverridesApplied(
        execution_id=run_id,
        overridden=names,
        block_overrides=_kept(blocks, capture),
        input_overrides=_kept(inputs, capture),
    )
    is_known = (
        set(names) <= set(known.overridden)
        and _holds(known.block_overrides, event.block_overrides)
        and _holds(known.input_overrides, event.input_overrides)
    )
    return None if is_known else event


def _inputs(begun: Begun) -> dict[str, dict[str, Any]]:
    """The overrides of steps' inputs by step id."""
    first, stretch = begun.plan.flow.steps[begun.stretch.first], begun.stretch
    inputs = dict(stretch.step_inputs)
    if stretch.input:
        inputs[first.id] = {**stretch.input, **inputs.get(first.id, {})}
    return inputs


def _holds(known: dict[str, Any] | None, new: dict[str, Any] | None) -> bool:
    """Whether a call says nothing of a step that its run does not know; it may say less, as of one step."""
    if new is None or new == known:
        return True
    return known is not None and all(
        name in known and (known[name] == value or _is_part(value, known[name]))
        for name, value in new.items()
    )


def _is_part(new: object, known: object) -> bool:
    return isinstance(new, dict) and isinstance(known, dict) and new.items() <= known.items()


def _kept(overrides: dict[str, dict[str, Any]], capture: Capture) -> dict[str, Any] | None:
    snapshot = capture.snapshot(Payload(overrides)).data if overrides else None
    kept: dict[str, Any] | None = None if snapshot is None else msgspec.json.decode(snapshot)
    return kept

"""The trace types are those of the run reference, and their snapshots decode when read."""

import copy
import pickle

import msgspec
import pytest

from runglass.log.trace import RunSummary, StepAttempts, StepTrace, TokenBreakdown, Trace

REFERENCE: dict[type[msgspec.Struct], list[str]] = {
    Trace: ["flow_run", "steps"],
    RunSummary: [
        *("id", "flow_id", "status", "trigger_type"),
        *("started_at", "completed_at", "duration_ms", "step_count"),
    ],
    StepTrace: [
        *("step_id", "attempt", "loop_index", "status", "started_at", "completed_at"),
        *("duration_ms", "model_used"),
        *("tokens", "cost_usd", "input_context", "output_context", "error_context", "input_size_bytes"),
        *("output_size_bytes", "truncated"),
    ],
    TokenBreakdown: ["prompt", "completion", "total"],
    StepAttempts: ["step_id", "attempts"],
}


@pytest.mark.parametrize("kind", REFERENCE)
def test_the_attributes_of_the_reference_are_there_in_its_order(kind: type[msgspec.Struct]) -> None:
    assert [name for name in kind.__struct_fields__ if name in REFERENCE[kind]] == REFERENCE[kind]


def decode(text: bytes) -> StepTrace:
    return msgspec.json.decode(text, type=StepTrace)


def test_a_step_needs_only_its_id_and_ignores_what_it_does_not_know() -> None:
    step = decode(b'{"stepId":"a","somethingNew":{"x":1}}')
    assert (step.step_id, step.attempt, step.input_context, step.truncated) == ("a", 1, None, False)


def test_a_snapshot_is_decoded_once_and_only_when_it_is_read() -> None:
    step = decode(b'{"stepId":"a","inputContext":{"x":[1,2]},"outputContext":{"broken json is not here":1}}')
    assert step.input_context == {"x": [1, 2]}
    assert step.input_context is step.input_context


def test_snapshots_that_were_not_read_are_encoded_unchanged() -> None:
    text = b'{"stepId":"a","inputContext": {"x":  1.50}}'
    assert b'"inputContext":{"x":  1.50}' in msgspec.json.encode(decode(text))


def test_equality_does_not_depend_on_what_was_read() -> None:
    one, two = (
        decode(b'{"stepId":"a","inputContext":{"x":1}}'),
        decode(b'{"stepId":"a","inputContext": {"x": 1} }'),
    )
    assert one == two
    assert one.input_context == {"x": 1}
    assert one == two
    assert hash(one) == hash(two)
    assert not one != two  # noqa: SIM202  # that `!=` agrees with `==` is what is tested
    assert one != decode(b'{"stepId":"a","inputContext":{"x":2}}')
    assert one != "a"


def test_a_step_is_frozen_but_can_be_copied_and_pickled() -> None:
    step = decode(b'{"stepId":"a","inputContext":{"x":1}}')
    with pytest.raises(AttributeError):
        step.step_id = "b"  # type: ignore[misc]  # that it fails is what is tested
    assert copy.copy(step) == step
    assert pickle.loads(pickle.dumps(step)) == step
    assert "'x': 1" in repr(step)

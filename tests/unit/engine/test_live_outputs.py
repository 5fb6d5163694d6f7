"""Content on its way to a caller is held up to a megabyte, and not at all once the caller has left."""

from runglass.engine.steps.run_context import MOST_BYTES, LiveOutputs


def test_outputs_beyond_the_limit_are_read_from_the_store() -> None:
    outputs = LiveOutputs()
    assert outputs.keep(1, b"x" * MOST_BYTES), "one is always held"
    assert not outputs.keep(2, b"y")
    assert outputs.pop(1) == b"x" * MOST_BYTES
    assert outputs.keep(3, b"z")
    assert (outputs.pop(2), outputs.pop(3), outputs.stored) == (None, b"z", {2})
    assert outputs.held_bytes == 0


def test_outputs_are_dropped_when_the_caller_has_left() -> None:
    outputs = LiveOutputs()
    outputs.keep(1, b"x")
    outputs.close()
    assert outputs.keep(2, b"y" * 2 * MOST_BYTES), "it needs no place in the store"
    assert (outputs.pop(1), outputs.pop(2), outputs.held_bytes) == (None, None, 0)

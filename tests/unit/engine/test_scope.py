"""The names that a step sees: nearer ones hide farther ones, however many there are."""

import pytest

from runglass.engine.payload import Payload
from runglass.engine.steps.scope import MANY_NAMES, Scope


@pytest.mark.parametrize("count", [3, MANY_NAMES + 1])
def test_an_input_hides_loop_names_and_is_not_changed(count: int) -> None:
    around = Scope({"message": "hello"}).iteration({"item": 1, "index": 0})
    around.keep("before", Payload({"text": "b"}))
    data = {"item": "mine", "attempt": "mine too", **{f"n{number}": number for number in range(count)}}
    names = around.names(data, attempt=2)
    assert dict(names) == {
        "initial": {"message": "hello"},
        "steps": {"before": {"text": "b"}},
        "index": 0,
        **data,
    }
    assert "n1" in names
    assert names.get("nothing") is None
    names.clear()
    assert dict(names) == {}
    assert len(data) == count + 2

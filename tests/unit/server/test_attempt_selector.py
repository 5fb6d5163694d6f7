"""The rules of `attempt`, where loops run at the same time and nest."""

from runglass.server.services.step_attempts import choose
from runglass.store.records import AttemptKey

# Iterations that ran at the same time: their order of first start is not that of their indices.
KEYS = [
    AttemptKey(1, "1,2", 1),
    AttemptKey(2, "0,12", 1),
    AttemptKey(3, "1,0", 1),
    AttemptKey(3, "1,0", 2),
    AttemptKey(4, "0,2", 1),
]


def test_all_attempts_are_sorted_by_iteration_and_number() -> None:
    found = [(key.loop_path, key.attempt) for key in choose(KEYS, attempt="all")]
    assert found == [("0,2", 1), ("0,12", 1), ("1,0", 1), ("1,0", 2), ("1,2", 1)]

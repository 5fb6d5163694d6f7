"""The rules of `attempt`, where loops run at the same time and nest."""

import pytest

from runglass.server.services.step_attempts import choose
from runglass.store.records import AttemptKey

# Iterations that ran at the same time: their order of first start is not that of their indices.
KEYS = [
    AttemptKey(1, "1,2", 1),
    AttemptKey(2, "0,12", 1),
    AttemptKey(3, "1,0", 1),
    AttemptKey(3, "1,0", 2),
    AttemptKey(3, "1,0", 3),
    AttemptKey(4, "0,2", 1),
    AttemptKey(4, "0,2", 2),
]


@pytest.mark.parametrize(
    ("attempt", "chosen"),
    [
        ("latest", [("0,2", 2)]),
        ("1", [("0,2", 1)]),
        ("3", []),
        ("all", [("0,2", 1), ("0,2", 2), ("0,12", 1), ("1,0", 1), ("1,0", 2), ("1,0", 3), ("1,2", 1)]),
    ],
)
def test_attempts_are_selected_by_number_in_the_iteration_that_began_last(
    attempt: str, chosen: list[tuple[str, int]]
) -> None:
    found = choose(KEYS, attempt=attempt)
    assert [(key.loop_path, key.attempt) for key in found] == chosen

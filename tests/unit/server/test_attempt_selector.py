"""The rules of `attempt`, where loops run at the same time and nest."""

import pytest

from runglass.server.services.step_attempts import SLICE_ROWS, choose
from runglass.store.records import StepRow


def row(position: int, loop_path: str, attempt: int = 1) -> StepRow:
    return StepRow(position, "s", loop_path, attempt, "completed", b"{}")


# Iterations that ran at the same time: their order of first start is not that of their indices.
ROWS = [
    row(1, "1,2"),
    row(2, "0,12"),
    row(3, "1,0", 1),
    row(3, "1,0", 2),
    row(3, "1,0", 3),
    row(4, "0,2", 1),
    row(4, "0,2", 2),
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
    found = choose(ROWS, attempt=attempt)
    assert [(row.loop_path, row.attempt) for row in found] == chosen


def test_more_attempts_than_are_sorted_at_a_time_are_in_order() -> None:
    count = 2 * SLICE_ROWS + 1
    rows = [row(place, f"{place % 7},{count - place}") for place in range(1, count + 1)]
    found = [tuple(map(int, row.loop_path.split(","))) for row in choose(rows, attempt="all")]
    assert found == sorted((place % 7, count - place) for place in range(1, count + 1))


def test_a_step_outside_of_loops_has_no_iterations() -> None:
    rows = [row(1, "", 1), row(1, "", 2)]
    assert choose(rows, attempt="latest") == rows[1:]
    assert choose([], attempt="all") == choose([], attempt="latest") == []

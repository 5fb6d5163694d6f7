"""The rules of `attempt` and `loop_index`, where loops run at the same time and nest."""

import pytest

from runglass.server.requests.attempt_selector import choose
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
    ("attempt", "loop_index", "chosen"),
    [
        ("latest", None, [("0,2", 2)]),
        ("1", None, [("0,2", 1)]),
        ("3", None, []),
        ("latest", "1,0", [("1,0", 3)]),
        ("2", "1,0", [("1,0", 2)]),
        ("latest", "2", [("0,2", 2)]),
        ("latest", "0", [("1,0", 3)]),
        ("latest", "1", []),
        ("latest", "5,0,2", []),
        ("all", "2", [("0,2", 1), ("0,2", 2), ("1,2", 1)]),
        (
            "all",
            None,
            [("0,2", 1), ("0,2", 2), ("0,12", 1), ("1,0", 1), ("1,0", 2), ("1,0", 3), ("1,2", 1)],
        ),
    ],
)
def test_attempt_and_loop_index_select_rows(
    attempt: str, loop_index: str | None, chosen: list[tuple[str, int]]
) -> None:
    found = choose(ROWS, attempt=attempt, loop_index=loop_index)
    assert [(row.loop_path, row.attempt) for row in found] == chosen


def test_a_step_outside_of_loops_has_no_iterations() -> None:
    rows = [row(1, "", 1), row(1, "", 2)]
    assert choose(rows, attempt="latest", loop_index=None) == rows[1:]
    assert choose(rows, attempt="latest", loop_index="0") == []
    assert choose([], attempt="all", loop_index=None) == []

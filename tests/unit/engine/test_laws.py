"""The laws hold for every flow: checked in simulated worlds, append by append."""

from typing import Any

import pytest

from tests.prove.simulate import live, simulate
from tests.prove.simulating.disk import Fault
from tests.prove.simulating.limits import BUDGET_USD, Limits

SEEDS = 30
"""`make prove` lives through 2,000."""


def test_the_laws_hold_in_every_world() -> None:
    report = simulate(seeds=SEEDS)
    assert report[0].startswith(f"simulate, seeds 0 to {SEEDS - 1}")
    assert report[0].endswith("no lie")


def test_the_laws_hold_where_processes_die_often() -> None:
    """Whatever waits, be it for its time or for its next attempt, waits on in the next process."""
    for seed in range(40):
        live(seed, crashes=True)


def test_a_seed_is_replayed_exactly() -> None:
    assert [live(seed) for seed in range(5)] == [live(seed) for seed in range(5)]


ON_BUDGET: dict[str, Any] = {"engines": 2, "limits": Limits(budget_usd=BUDGET_USD, is_crowded=True)}
OLD_FENCE = r"an append with fence \d+, not|there is more after that|has ended and was claimed"


@pytest.mark.parametrize(
    ("fault", "lie", "first", "how"),
    [
        ("steps that are not stored", "the stored steps are the fold", 0, {}),
        ("budgets that each process counts alone", "dollars of .* are spent or held", 0, ON_BUDGET),
        ("claims that are not limited", "and 1 may", 0, {"engines": 2, "limits": Limits(of_project=1)}),
        # The first is about where it was found last.
        ("writers with an old fence", OLD_FENCE, 40, {"engines": 2, "naps": True}),
        ("writers with an old fence", OLD_FENCE, 0, {"engines": 3, "naps": True}),
    ],
)
def test_a_store_that_does_not_keep_its_word_is_found_out(
    fault: Fault, lie: str, first: int, how: dict[str, Any]
) -> None:
    """In one of eighty worlds at the latest."""
    with pytest.raises(AssertionError, match=lie):
        [live(seed, fault=fault, **how) for seed in range(first, first + 80)]


def test_a_store_that_loses_checkpoints_is_found_out_by_a_lie_that_names_its_seed() -> None:
    with pytest.raises(AssertionError, match=r"(?s)^seed \d+: .*--first \d+ --seeds 1"):
        simulate(seeds=20, fault="checkpoints that are lost")

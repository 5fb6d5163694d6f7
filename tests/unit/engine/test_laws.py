"""The laws hold for every flow: checked in simulated worlds, append by append."""

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


@pytest.mark.parametrize("fault", ["checkpoints that are lost", "steps that are not stored"])
def test_a_store_that_does_not_keep_its_word_is_found_out(fault: Fault) -> None:
    with pytest.raises(AssertionError):
        [live(seed, fault=fault) for seed in range(20)]


@pytest.mark.parametrize(
    ("fault", "limits", "lie"),
    [
        (
            "budgets that each process counts alone",
            Limits(budget_usd=BUDGET_USD, is_crowded=True),
            "dollars of .* are spent or held",
        ),
        ("claims that are not limited", Limits(of_project=1), "runs of .* go on at once, and 1 may"),
    ],
)
def test_a_limit_over_all_processes_that_each_takes_for_its_own_is_found_out(
    fault: Fault, limits: Limits, lie: str
) -> None:
    with pytest.raises(AssertionError, match=lie):
        [live(seed, fault=fault, engines=2, limits=limits) for seed in range(80)]


@pytest.mark.parametrize(("engines", "first"), [(2, 40), (3, 0)])
def test_a_store_that_ignores_the_fence_is_found_out(engines: int, first: int) -> None:
    """In one of eighty worlds at the latest; the first of them is about where it was found last."""
    lies = r"an append with fence \d+, not|there is more after that|has ended and was claimed"
    with pytest.raises(AssertionError, match=lies):
        [
            live(seed, fault="writers with an old fence", engines=engines, naps=True)
            for seed in range(first, first + 80)
        ]


def test_a_lie_names_its_seed() -> None:
    with pytest.raises(AssertionError, match=r"(?s)^seed \d+: .*--first \d+ --seeds 1"):
        simulate(seeds=20, fault="checkpoints that are lost")

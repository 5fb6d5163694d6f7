"""Some worlds of `prove simulate`: whatever happens to its processes, the log of a run keeps to its laws."""

from typing import get_args

import pytest

from tests.prove.simulate import simulate
from tests.prove.simulating.disk import Fault
from tests.prove.simulating.seed import live

SEEDS = 60


def test_the_laws_hold_in_every_world() -> None:
    report = simulate(seeds=SEEDS)
    assert report[0].startswith(f"simulate, seeds 0 to {SEEDS - 1}")
    assert len(report) == 5 + len(get_args(Fault)), "each fault of a store is found out"


def test_a_seed_is_replayed_exactly() -> None:
    assert [live(seed) for seed in range(5)] == [live(seed) for seed in range(5)]


def test_a_lie_names_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.prove.simulating.walk.CRASH_RETRIES", -1)
    with pytest.raises(AssertionError, match=r"^seed \d+: .*--first \d+ --seeds 1"):
        simulate(seeds=SEEDS)

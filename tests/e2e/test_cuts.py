"""`make prove` cuts streams at every byte; here are a few hundred cuts of each kind, for each reader."""

import pytest

from tests.prove import cuts
from tests.prove.proxied import break_live
from tests.prove.readers import KINDS, Kind
from tests.prove.recorded import Recording, record

STRIDE = 127


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return record()


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_sees_every_event_once_wherever_its_stream_is_cut(
    recordings: list[Recording], kind: Kind
) -> None:
    places = tuple(cuts.every_offset(recordings)[::STRIDE])
    found = cuts.break_recorded(recordings, cuts.Task(kind, places, "small"))
    assert found.readings == len(places)
    assert found.resumes > 2 * len(places)


def test_a_run_is_followed_through_a_proxy_that_keeps_cutting_it_off() -> None:
    lines = break_live(100, seed=1)
    assert "of them while the run went on" in lines[0]

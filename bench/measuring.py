"""Taking samples: every side of a figure in turns, so that a busy moment of the machine hits all of them."""

import gc
import time
from collections.abc import Callable, Mapping

Side = Callable[[], float]


def side_by_side(sides: Mapping[str, Side], *, rounds: int, warm_ups: int = 1) -> dict[str, list[float]]:
    """The samples of each side, taken A B C A B C …, after `warm_ups` rounds that do not count."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warm_ups, rounds):
        for name, side in sides.items():
            # What one side leaves behind is not for the next one to clear up.
            gc.collect()
            sample = side()
            if number >= 0:
                found[name].append(sample)
    return found


def took_ms(work: Callable[[], object]) -> float:
    """How long one call takes, in milliseconds; what it returns is freed outside of the measure."""
    began_s = time.perf_counter()
    result = work()
    spent_ms = (time.perf_counter() - began_s) * 1000
    del result
    return spent_ms

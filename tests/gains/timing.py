"""How long work takes, as ratios that hold on every machine."""

import time
from collections.abc import Callable

LINEAR = 24
"""Eight times the size may take eight times as long, or three times that."""


def seconds(work: Callable[[], object]) -> float:
    """Time on the processor, the best of five: what others do on the machine does not count."""
    best = float("inf")
    for _ in range(5):
        began = time.thread_time()
        work()
        best = min(best, time.thread_time() - began)
    return best


def growth(make: Callable[[int], Callable[[], object]], size: int) -> float:
    """How many times as long the work made for eight times the size takes: 8 where that is linear.

    Less than a millisecond counts as one.
    """
    short, long = (max(seconds(make(each)), 0.001) for each in (size, 8 * size))
    return long / short

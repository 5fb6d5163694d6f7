"""How much memory something takes."""

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def most_memory(work: Callable[[], T]) -> tuple[T, int]:
    """What the work returns, and how many bytes were held for it at most."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

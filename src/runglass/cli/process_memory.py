"""How processes that live long use memory: few walks of the collector, large blocks given back."""

import ctypes
import gc

LARGE_BLOCK_BYTES = 1 << 20
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""The names of these options in malloc.h."""
GC_OBJECTS = 20_000
"""New objects before the garbage collector looks at them."""


def tune_memory() -> None:
    """For the rest of the process: the collector looks seldom, and large blocks go back once freed."""
    # Runs make next to no garbage. By default the collector walks through their objects after every 700 new
    # ones; with 200 runs that was a tenth of all work.
    gc.set_threshold(GC_OBJECTS, 10, 10)
    _give_back_large_blocks()


def _give_back_large_blocks() -> None:
    """Lets the C library, where it is that of GNU, give back large blocks as soon as they are freed.

    By itself the library takes the first large block that is freed for a sign of more, and from then on keeps
    such blocks in a heap with holes: the memory of results of megabytes would never be given back.
    """
    if (set_option := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        set_option(_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        # The option above keeps this threshold from growing by itself; as small as it begins, the library
        # would ask the system anew for each part of a long answer.
        set_option(_TRIM_THRESHOLD, 2 * LARGE_BLOCK_BYTES)

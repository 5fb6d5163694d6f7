"""Imports without the garbage collector, which would look again and again through objects that all stay."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """What is imported in this block is loaded faster, and no collection ever looks through it.

    Only for whoever owns the process: all else that is there is frozen with it.
    """
    was_on, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        # Before the collector is back: its first run would walk through everything that was just loaded.
        if len(sys.modules) > known:
            gc.freeze()
        if was_on:
            gc.enable()

"""Imports without the garbage collector, which would look again and again through objects that all stay."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Modules that are imported in this block load faster, and no collection looks through them afterwards.

    All other objects of the process are frozen with them.
    """
    was_enabled, modules_before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        # Frozen before the collector is back, whose first run would walk through all new modules.
        if len(sys.modules) > modules_before:
            gc.freeze()
        if was_enabled:
            gc.enable()

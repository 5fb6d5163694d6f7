"""A cache that counts what it holds in bytes, so that large values of callers cannot fill the memory.

Objects made from callers' bytes, such as compiled schemas and decoded flows, are kept in caches of this kind.
Must not know what it holds.
"""

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Key = TypeVar("Key", bound=bytes | str)
Value = TypeVar("Value")

DEFAULT_LIMIT_BYTES = 64 << 20
LEAST_VALUES = 4
"""A value is not kept if so many of its size do not fit: it would push out too many others."""

_caches: "WeakSet[ByteCache[Any, Any]]" = WeakSet()


class ByteCache(Generic[Key, Value]):
    """The newest values that `make` made, by the bytes that they are made of; for any number of threads.

    A value counts as `times` as many bytes as its key, which is kept too. The exact size of an object is not
    known, so `times` is measured once and rounded up. `beside` gives the bytes that a value takes beyond
    that. `share` is the part of the limit that is this cache's.
    """

    def __init__(
        self,
        make: Callable[[Key], Value],
        *,
        times: int,
        share: float,
        beside: Callable[[Value], int] | None = None,
    ) -> None:
        self._make = make
        self._times = times
        self._share = share
        self._beside = beside
        # Each value with the bytes that it counts as.
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.limit_bytes = int(DEFAULT_LIMIT_BYTES * share)
        self.size_bytes = 0
        _caches.add(self)

    def __call__(self, key: Key) -> Value:
        """The value for the key, made where it is not kept. Raises what `make` raises."""
        # The lock is not needed here: each of the two calls is atomic, and between them another thread can
        # only drop the value or replace it by an equal one.
        try:
            value, _ = self._values[key]
            self._values.move_to_end(key)
            return value
        except KeyError:
            pass
        value = self._make(key)
        weight = sys.getsizeof(key) * (self._times + 1) + 500 + (self._beside(value) if self._beside else 0)
        if weight * LEAST_VALUES <= self.limit_bytes:
            with self._lock:
                if key not in self._values:
                    self.size_bytes += weight
                self._values[key] = value, weight
                self._shrink()
        return value

    def limit(self, total_bytes: int) -> None:
        """Keeps no more than this cache's share of `total_bytes` from now on."""
        with self._lock:
            self.limit_bytes = int(total_bytes * self._share)
            self._shrink()

    def _shrink(self) -> None:
        while self.size_bytes > self.limit_bytes:
            _, (_, weight) = self._values.popitem(last=False)
            self.size_bytes -= weight


def limit_caches(total_bytes: int) -> None:
    """Limits all caches of the process together that exist at this moment."""
    for cache in list(_caches):
        cache.limit(total_bytes)

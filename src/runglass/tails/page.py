"""Consecutive events of a run, as its tails share them."""

from functools import cached_property

from runglass.log.events import event_type_of
from runglass.wire.sse import frames


class Page(tuple[tuple[int, bytes], ...]):
    """Consecutive events, as `(seq, event as JSON)`; tails at the same place share one page."""

    @cached_property
    def frames(self) -> bytes:
        """The page as bytes of a stream, made once for all tails that share it."""
        return frames([(seq, event_type_of(data), data) for seq, data in self])

    @cached_property
    def types(self) -> frozenset[str]:
        """The types of its events, found once for all tails that share it."""
        return frozenset(event_type_of(data) for _, data in self)

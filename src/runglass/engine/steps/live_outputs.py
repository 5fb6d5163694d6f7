"""Content of events on its way to the caller of a segment: held here, and stored where it is too much.

Knows neither events nor streams: bytes by the seq of their event.
"""

MOST_BYTES = 1 << 20
"""Beyond this, content goes to the store and is read back from there, however slowly its caller reads."""


class LiveOutputs:
    """What one caller is to have of the events of its segment, until the caller has read or left."""

    def __init__(self) -> None:
        self.stored: set[int] = set()
        """Seqs of the events whose content is in the store."""
        self._held: dict[int, bytes] = {}
        self._bytes = 0
        self._is_open = True

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def keep(self, seq: int, content: bytes) -> bool:
        """Whether the content needs no place in the store: it is held, or its caller has left."""
        if not self._is_open:
            return True
        if self._held and self._bytes + len(content) > MOST_BYTES:
            self.stored.add(seq)
            return False
        self._held[seq] = content
        self._bytes += len(content)
        return True

    def pop(self, seq: int) -> bytes | None:
        """The content of an event that is held, once."""
        content = self._held.pop(seq, None)
        self._bytes -= len(content or b"")
        return content

    def close(self) -> None:
        """The caller has read everything, or left: nothing more is held."""
        self._is_open = False
        self._held.clear()
        self.stored.clear()
        self._bytes = 0

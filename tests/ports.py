"""Ports that a test has for itself."""

import socket

_TAKEN: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody listens on, for servers that come to it and go; nobody else is given it."""
    taken = socket.socket()
    # Bound and not listening, it leaves the port to whoever asks for this very one.
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("", 0))
    _TAKEN.append(taken)
    port: int = taken.getsockname()[1]
    return port

"""Whether a request says beyond doubt where it ends and for whom it is.

A proxy in front may understand a doubtful one differently, and then one caller's request ends in another's
answer. The parser refuses most of these shapes; here is what it lets pass.
"""

import re
from collections.abc import Mapping

WATCHED = frozenset({b"expect", b"host", b"transfer-encoding", b"upgrade"})
"""Headers that say how a request is to be read."""

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")


def fault_of(version: str, watched: Mapping[bytes, list[bytes]], *, upgrades: bool) -> str | None:
    """What is wrong with a head of this HTTP version and these watched headers; None if nothing is."""
    hosts = watched.get(b"host", [])
    if len(hosts) != 1 and (hosts or version != "1.0"):
        return f"the request must have one Host header, not {len(hosts)}"
    if hosts and not _HOST.fullmatch(hosts[0]):
        return "the Host header is not the name of a host"
    if version not in ("1.1", "1.0"):
        return "this server speaks HTTP/1.1"
    codings = watched.get(b"transfer-encoding")
    # The parser does not read the chunks of a request that asks for an upgrade.
    if codings is not None and (b",".join(codings).lower() != b"chunked" or version == "1.0" or upgrades):
        return "of transfer encodings this server knows `chunked` alone, in HTTP/1.1 and without an upgrade"
    return None

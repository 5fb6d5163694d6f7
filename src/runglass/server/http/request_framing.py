"""Whether the head of a request states beyond doubt where the request ends and which host it is for.

A proxy in front may read an ambiguous head differently, and then one caller's request ends up in another's
response. The parser refuses most ambiguous heads; this file refuses the rest.
"""

import re
from collections.abc import Mapping

WATCHED = frozenset({b"expect", b"host", b"transfer-encoding", b"upgrade"})
"""The headers that decide how a request is read."""

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")


def fault_of(version: str, watched: Mapping[bytes, list[bytes]], *, upgrades: bool) -> str | None:
    """The fault of a head with this HTTP version and these watched headers; None if it has none."""
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

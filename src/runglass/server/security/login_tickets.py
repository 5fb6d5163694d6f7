"""Tickets with which a browser on this machine is signed in by a link: each works once, within a minute.

The link stands in a terminal or in the browser's history, where a key must not be; by the time that anybody
else reads it there, it is worth nothing.
"""

import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple

from starlette.types import Scope

from runglass.errors import api_error
from runglass.server.security.browser_sessions import header, host_of
from runglass.store.keys import digest_of
from runglass.store.records import ApiKey

TICKET_S = 60.0
MOST_TICKETS = 1000
MOST_OF_PROJECT = 100
MOST_OF_KEY = 10
"""Tickets of one key; with one more, its oldest is worth nothing."""

PATH = "/viewer/ticket/"
_PAGE = re.compile(r"/(?![/\\])[\w/.~?&=%,:;+-]{0,500}", re.ASCII)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class Ticket(NamedTuple):
    """The key that a ticket signs in with, and the page that it opens.

    `began_at` is when the session began that asked for it, if no key did.
    """

    project_id: int
    key_id: int
    page: str
    ends_s: float
    began_at: str | None


class LoginTickets:
    """The tickets that were given out and not used. `clock` gives seconds that never go back."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tickets: dict[bytes, Ticket] = {}

    def issue(self, key: ApiKey, page: str = "/", *, began_at: str | None = None) -> str:
        """The path that opens the page, signed in. Raises INVALID_REQUEST for a page elsewhere."""
        if not _PAGE.fullmatch(page):
            raise api_error("INVALID_REQUEST", f"`page` must be a path of this server, not {page:.100}")
        self._make_room(key)
        ticket = secrets.token_urlsafe(32)
        issued = Ticket(key.project_id, key.id, page, self._clock() + TICKET_S, began_at)
        self._tickets[digest_of(ticket)] = issued
        return f"{PATH}{ticket}"

    def redeem(self, ticket: str) -> Ticket | None:
        """The ticket with this text, which is used up by that; None for an unknown or expired one."""
        found = self._tickets.pop(digest_of(ticket), None)
        return found if found is not None and self._clock() <= found.ends_s else None

    def _make_room(self, key: ApiKey) -> None:
        """Drops a ticket of the key or the project that has too many, or else of the one that has most."""
        held = self._tickets
        of_project = [digest for digest, each in held.items() if each.project_id == key.project_id]
        of_key = [digest for digest in of_project if held[digest].key_id == key.id]
        if len(of_key) >= MOST_OF_KEY:
            del held[of_key[0]]
        elif len(of_project) >= MOST_OF_PROJECT:
            del held[of_project[0]]
        elif len(held) >= MOST_TICKETS:
            ((largest, _),) = Counter(each.project_id for each in held.values()).most_common(1)
            del held[next(digest for digest, each in held.items() if each.project_id == largest)]


def is_from_this_machine(scope: Scope) -> bool:
    """Whether a browser on this machine asks, and no proxy on it for somebody else."""
    client = scope["client"]
    if client is None or not _is_loopback(client[0]) or any(header(scope, name) for name in _FORWARDED):
        return False
    host = host_of(scope)
    return host == "localhost" or host.endswith(".localhost") or _is_loopback(host)


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return found.is_loopback or (mapped is not None and mapped.is_loopback)

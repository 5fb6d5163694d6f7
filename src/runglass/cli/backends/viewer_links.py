"""Links that open the viewer: for the key of a server's caller, and for the projects of a data folder."""

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runglass.cli.argument_parsers import ProjectName
from runglass.client.core.connection import endpoint

if TYPE_CHECKING:
    from runglass.client import Client
    from runglass.server import LoginTickets
    from runglass.store.base import Store

MOST_PROJECTS = 10
"""Links that a starting server prints; a server of more projects has people who open one each."""
ROLES = ("admin", "run", "read")


def viewer_link(client: "Client", page: str, *, base_url: str | None, api_key: str | None) -> str:
    """The URL of a page of the viewer; it signs the browser in where the server is on this machine.

    Raises APIError.
    """
    parts = urlsplit(endpoint(api_key=api_key, base_url=base_url, timeout=None, max_retries=0).base_url)
    origin = f"{parts.scheme}://{parts.netloc}"
    if not is_this_machine(parts.hostname or ""):
        return f"{origin}{page}"
    # Imported when called: the other commands have no use for it.
    from runglass.client.api.admin import Management

    return f"{origin}{Management(client).ticket(page).path}"


async def project_links(store: "Store", tickets: "LoginTickets") -> list[tuple[ProjectName, str]]:
    """The paths that sign a browser in, for each project that has a key: the one with the highest role."""
    links: list[tuple[ProjectName, str]] = []
    for project in (await store.projects())[:MOST_PROJECTS]:
        keys = [key for key in await store.keys(project.id) if key.revoked_at is None]
        if keys:
            best = min(keys, key=lambda key: (ROLES.index(key.role), -key.id))
            links.append((ProjectName(project.org, project.name), tickets.issue(best)))
    return links


def is_this_machine(host: str) -> bool:
    """Whether a name or an address is plainly of the machine that the command runs on."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

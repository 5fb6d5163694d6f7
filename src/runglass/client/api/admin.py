"""Flows of a project, managed on a server: push, publish, roll back, look.

Apart from the client because few programs need it: most only run flows. Changes need a key with the role
`admin`.
"""

from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from runglass.client.core.requests import RequestSpec, following_page, whole
from runglass.wire.admin_api import (
    FlowHistory,
    FlowInfo,
    FlowList,
    FlowTree,
    FlowVersionNumber,
    PushedFlow,
    TicketRequest,
    ViewerTicket,
)

if TYPE_CHECKING:
    from runglass.client import Client

T = TypeVar("T")


class AdminRequest(RequestSpec[T], Generic[T], frozen=True, kw_only=True):
    """A call that the server may get twice, as it sets a state and adds nothing."""

    method: Any

    @property
    def repeatable(self) -> bool:
        return True


def own_flows() -> RequestSpec[FlowList]:
    """List the flows of the key's project, from the first one on."""
    return AdminRequest(method="GET", path="/flows", answer=FlowList)


def flows(org: str, project: str) -> RequestSpec[FlowList]:
    """List a project's flows, from the first one on."""
    return AdminRequest(method="GET", path=_path(org, project), answer=FlowList)


def flow(org: str, project: str, slug: str) -> RequestSpec[FlowHistory]:
    """Look at a flow and its first versions."""
    return AdminRequest(method="GET", path=_path(org, project, slug), answer=FlowHistory)


def flow_version(org: str, project: str, slug: str, version: int) -> RequestSpec[FlowTree]:
    """Read a version."""
    path = f"{_path(org, project, slug)}/versions/{_number(version, least=0)}"
    return AdminRequest(method="GET", path=path, answer=dict[str, Any])


def push(org: str, project: str, slug: str, text: str | bytes) -> RequestSpec[PushedFlow]:
    """Store a draft."""
    return AdminRequest(
        method="PUT",
        path=_path(org, project, slug),
        answer=PushedFlow,
        headers={"Content-Type": "application/yaml"},
        body=whole("text", text).encode() if isinstance(text, str) else text,
    )


def publish(org: str, project: str, slug: str) -> RequestSpec[FlowVersionNumber]:
    """Publish the draft."""
    path = f"{_path(org, project, slug)}/publish"
    return AdminRequest(method="POST", path=path, answer=FlowVersionNumber)


def set_production(org: str, project: str, slug: str, version: int) -> RequestSpec[FlowInfo]:
    """Roll back or forward."""
    return AdminRequest(
        method="PUT",
        path=f"{_path(org, project, slug)}/production",
        answer=FlowInfo,
        headers={"Content-Type": "application/json"},
        body=msgspec.json.encode(FlowVersionNumber(version=_number(version, least=1))),
    )


def ticket(page: str) -> RequestSpec[ViewerTicket]:
    """Make a link that signs a browser in."""
    body = msgspec.json.encode(TicketRequest(page=page))
    headers = {"Content-Type": "application/json"}
    return AdminRequest(
        method="POST", path="/viewer/tickets", answer=ViewerTicket, headers=headers, body=body
    )


class Management:
    """The flows that the key of a client may manage."""

    def __init__(self, client: "Client") -> None:
        self._transport = client._transport

    def own_flows(self, *, timeout: float | None = None) -> FlowList:
        """All flows of the project that the key belongs to, and how that is called.

        They are fetched page by page, and `timeout` is for each.
        """
        return self._all_flows(own_flows(), timeout)

    def flows(self, org: str, project: str, *, timeout: float | None = None) -> FlowList:
        """A project's flows, all of them, by slug. `timeout` is for each page."""
        return self._all_flows(flows(org, project), timeout)

    def flow(self, org: str, project: str, slug: str, *, timeout: float | None = None) -> FlowHistory:
        """A flow and all its versions, the draft, which is version 0, first. `timeout` is for each page."""
        call = flow(org, project, slug)
        page = found = self._transport.call(call, timeout=timeout)
        while page.next_cursor is not None:
            page = self._transport.call(following_page(call, page.next_cursor), timeout=timeout)
            found.versions.extend(page.versions)
        return msgspec.structs.replace(found, next_cursor=None)

    def flow_version(
        self, org: str, project: str, slug: str, version: int, *, timeout: float | None = None
    ) -> FlowTree:
        """A version of a flow as JSON; 0 is the draft."""
        return self._transport.call(flow_version(org, project, slug, version), timeout=timeout)

    def push(
        self, org: str, project: str, slug: str, text: str | bytes, *, timeout: float | None = None
    ) -> PushedFlow:
        """Stores a flow file, YAML or JSON, as the draft of its slug.

        Raises RequestError for a file with mistakes; `details["problems"]` has them all.
        """
        return self._transport.call(push(org, project, slug, text), timeout=timeout)

    def publish(self, org: str, project: str, slug: str, *, timeout: float | None = None) -> int:
        """Makes the draft the next version and that the production version; returns its number."""
        return self._transport.call(publish(org, project, slug), timeout=timeout).version

    def set_production(
        self, org: str, project: str, slug: str, version: int, *, timeout: float | None = None
    ) -> FlowInfo:
        """Makes a published version the production version. Raises ValueError for one below 1."""
        return self._transport.call(set_production(org, project, slug, version), timeout=timeout)

    def ticket(self, page: str = "/", *, timeout: float | None = None) -> ViewerTicket:
        """A link that opens a page of the viewer in a browser on the server's machine, signed in: once."""
        return self._transport.call(ticket(page), timeout=timeout)

    def _all_flows(self, call: RequestSpec[FlowList], timeout: float | None) -> FlowList:
        page = found = self._transport.call(call, timeout=timeout)
        while page.next_cursor is not None:
            page = self._transport.call(following_page(call, page.next_cursor), timeout=timeout)
            found.flows.extend(page.flows)
        return msgspec.structs.replace(found, next_cursor=None)


def _path(*names: str) -> str:
    for name in names:
        # `.` and `..` survive quoting, and proxies would resolve them into another path.
        if name in ("", ".", ".."):
            raise ValueError(f"{name!r} is not a name of an org, a project or a flow")
    return "/".join(["/flows", *(quote(whole("a name in the path", name), safe="") for name in names)])


def _number(version: object, *, least: int) -> int:
    if isinstance(version, int) and not isinstance(version, bool) and version >= least:
        return version
    raise ValueError(f"version must be a number from {least} on, not {version!r}")

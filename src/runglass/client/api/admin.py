"""Flows of a project, managed on a server: push, publish, roll back, look.

Apart from the client because few programs need it: most only run flows. Changes need a key with the role
`admin`.
"""

from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runglass.client.core.requests import RequestSpec, following_page, is_count, path_part, whole
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

Page = TypeVar("Page", FlowList, FlowHistory)


class Management:
    """The flows that the key of a client may manage."""

    def __init__(self, client: "Client") -> None:
        self._transport = client._transport

    def own_flows(self, *, timeout: float | None = None) -> FlowList:
        """All flows of the project that the key belongs to, and how that is called.

        They are fetched page by page, and `timeout` is for each.
        """
        call = RequestSpec(method="GET", path="/flows", answer=FlowList)
        return self._all_pages(call, "flows", timeout)

    def flows(self, org: str, project: str, *, timeout: float | None = None) -> FlowList:
        """A project's flows, all of them, by slug. `timeout` is for each page."""
        call = RequestSpec(method="GET", path=_path(org, project), answer=FlowList)
        return self._all_pages(call, "flows", timeout)

    def flow(self, org: str, project: str, slug: str, *, timeout: float | None = None) -> FlowHistory:
        """A flow and all its versions, the draft, which is version 0, first. `timeout` is for each page."""
        call = RequestSpec(method="GET", path=_path(org, project, slug), answer=FlowHistory)
        return self._all_pages(call, "versions", timeout)

    def flow_version(
        self, org: str, project: str, slug: str, version: int, *, timeout: float | None = None
    ) -> FlowTree:
        """A version of a flow as JSON; 0 is the draft."""
        path = f"{_path(org, project, slug)}/versions/{_number(version, least=0)}"
        call: RequestSpec[FlowTree] = RequestSpec(method="GET", path=path, answer=dict[str, Any])
        return self._transport.call(call, timeout=timeout)

    def push(
        self, org: str, project: str, slug: str, text: str | bytes, *, timeout: float | None = None
    ) -> PushedFlow:
        """Stores a flow file, YAML or JSON, as the draft of its slug.

        Raises RequestError for a file with mistakes; `details["problems"]` has them all.
        """
        call = RequestSpec(
            method="PUT",
            path=_path(org, project, slug),
            answer=PushedFlow,
            headers={"Content-Type": "application/yaml"},
            body=whole("text", text).encode() if isinstance(text, str) else text,
        )
        return self._transport.call(call, timeout=timeout)

    def publish(self, org: str, project: str, slug: str, *, timeout: float | None = None) -> int:
        """Makes the draft the next version and that the production version; returns its number."""
        path = f"{_path(org, project, slug)}/publish"
        call = RequestSpec(method="POST", path=path, answer=FlowVersionNumber, sets_state=True)
        return self._transport.call(call, timeout=timeout).version

    def set_production(
        self, org: str, project: str, slug: str, version: int, *, timeout: float | None = None
    ) -> FlowInfo:
        """Makes a published version the production version. Raises ValueError for one below 1."""
        call = RequestSpec(
            method="PUT",
            path=f"{_path(org, project, slug)}/production",
            answer=FlowInfo,
            headers={"Content-Type": "application/json"},
            body=msgspec.json.encode(FlowVersionNumber(version=_number(version, least=1))),
        )
        return self._transport.call(call, timeout=timeout)

    def delete(self, org: str, project: str, slug: str, *, timeout: float | None = None) -> None:
        """Deletes a flow; its runs stay, and its slug is free.

        Raises RequestError while runs of it have not ended, FlowNotFoundError, also where it was this call
        that deleted it and its answer was lost on the way.
        """
        call = RequestSpec(method="DELETE", path=_path(org, project, slug), answer=NoneType)
        self._transport.call(call, timeout=timeout)

    def ticket(self, page: str = "/", *, timeout: float | None = None) -> ViewerTicket:
        """A link that opens a page of the viewer in a browser on the server's machine, signed in: once."""
        call = RequestSpec(
            method="POST",
            path="/viewer/tickets",
            answer=ViewerTicket,
            sets_state=True,
            headers={"Content-Type": "application/json"},
            body=msgspec.json.encode(TicketRequest(page=page)),
        )
        return self._transport.call(call, timeout=timeout)

    def _all_pages(self, call: RequestSpec[Page], items: str, timeout: float | None) -> Page:
        """The pages as one; `items` names the list that each has a part of."""
        page = found = self._transport.call(call, timeout=timeout)
        while page.next_cursor is not None:
            page = self._transport.call(following_page(call, page.next_cursor), timeout=timeout)
            getattr(found, items).extend(getattr(page, items))
        return msgspec.structs.replace(found, next_cursor=None)


def _path(*names: str) -> str:
    return "/".join(["/flows", *(path_part("a name of an org, a project or a flow", name) for name in names)])


def _number(version: object, *, least: int) -> int:
    if isinstance(version, int) and is_count(version, least):
        return version
    raise ValueError(f"version must be a number from {least} on, not {version!r}")

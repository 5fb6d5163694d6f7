"""The bodies of the endpoints that manage a project: flows with their versions, and keys.

Plain values shared by client, server and terminal, all camelCase. Knows nothing of how they are stored.
"""

from typing import Any, Literal, get_args

import msgspec

from runglass.wire.run_api import CaptureMode

ActorKind = Literal["key", "cli", "server"]
Role = Literal["admin", "run", "read", "record"]
"""The roles of a key: manage flows and keys, execute and read, only read, or only send traces."""
ROLES: tuple[str, ...] = get_args(Role)
"""Each may do what the ones behind it may, but `read` may not send."""


class FlowInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A flow. `production_version` is None until a version has been published.

    A `recorded` one has the runs of another program; it has no version and is not executed.
    """

    id: str
    slug: str
    name: str | None
    capture: CaptureMode | None
    production_version: int | None
    updated_at: str
    recorded: bool = False


class FlowWarning(msgspec.Struct, frozen=True, kw_only=True):
    """A remark for the author of a flow that can be used all the same.

    `line` and `column` are of the text that was sent.
    """

    message: str
    path: str = ""
    line: int | None = None
    column: int | None = None


class PushedFlow(FlowInfo, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A flow that was just stored as a draft. The JSON has no `warnings` where there are none."""

    warnings: list[FlowWarning] = []


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A state of a flow; version 0 is the draft. One that is `imported` came with a run and does not run."""

    version: int
    created_at: str
    imported: bool = False


class FlowHistory(FlowInfo, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A flow and a page of its versions, the draft first. On the wire the last page has no `next_cursor`."""

    versions: list[VersionInfo]
    next_cursor: str | None = None


class FlowList(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A page of the flows of a project, by slug. On the wire the last page has no `next_cursor`."""

    org: str
    project: str
    flows: list[FlowInfo]
    next_cursor: str | None = None


class FlowVersionNumber(msgspec.Struct, frozen=True, kw_only=True):
    """The number of a published version: what `publish` answers and `production` takes."""

    version: int


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A key to make."""

    role: Role


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A key without the key: `hint` is how it begins."""

    id: int
    role: Role
    hint: str
    created_at: str
    revoked_at: str | None = None


class NewKeyInfo(KeyInfo, frozen=True, kw_only=True, rename="camel"):
    """A key that was just made. `key` is shown this once: only its hash is kept."""

    key: str


class KeyList(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A page of the keys of a project, revoked ones too. On the wire the last page has no `next_cursor`."""

    keys: list[KeyInfo]
    next_cursor: str | None = None


class TicketRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A link to make that signs a browser in; `page` is the path that it opens."""

    page: str = "/"


class ViewerTicket(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A link that signs a browser in once: its path on this server, good for `expires_in_s` seconds."""

    path: str
    expires_in_s: float


class ViewerIdentity(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The key of the request: its role, project and beginning (`key_name`); and the server's version."""

    role: Role
    org: str
    project: str
    key_name: str
    version: str


class Actor(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The author of a change: the holder of a key, a user of the terminal beside the data, or the server.

    `name` is the hint of the key, or the user of the operating system. `address` is that of the HTTP client,
    which behind a proxy is the proxy's, or `local`.
    """

    kind: ActorKind
    name: str | None = None
    key_id: int | None = None
    address: str = "local"


SERVER = Actor(kind="server")
"""The actor of changes by the process itself, such as publishing the files of its folder of flows."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A change with its actor. `subject` names the changed object, `details` has the changed fields.

    Where a field had a value before, `details` has `before` and `after`; never content or secrets.
    """

    id: int
    at: str
    project: str
    actor: Actor
    action: str
    subject: str
    details: dict[str, Any]


class AuditPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Entries of the audit log, newest first. `next_cursor` is None on the last page."""

    entries: list[AuditEntry]
    next_cursor: str | None = None


FlowTree = dict[str, Any]
"""A flow as JSON, in the shape of `/api/v1/schemas/flow.json`."""

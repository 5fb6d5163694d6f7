"""What runs are started from: projects with their flows and keys, and the audit log of their changes."""

import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Protocol

from runglass.store.records import (
    NO_RETENTION,
    ApiKey,
    FlowRecord,
    FlowVersion,
    Project,
    Retention,
    Role,
    ViewerSession,
)
from runglass.wire.admin_api import SERVER, Actor, AuditEntry
from runglass.wire.run_api import CaptureFailed, CaptureMode


class Catalog(Protocol):
    """Projects, flows, keys and viewer sessions.

    A method that takes `by` changes a project: the audit log names the actor, in the same transaction, unless
    nothing has changed.
    """

    async def ensure_project(self, org: str, name: str, *, by: Actor = SERVER) -> Project:
        """The project, created if it is new."""

    async def project(self, project_id: int) -> Project | None: ...
    async def find_project(self, org: str, name: str) -> Project | None: ...
    async def projects(self) -> list[Project]: ...

    async def set_capture(
        self,
        project_id: int,
        mode: CaptureMode | None,
        failed: CaptureFailed | None = None,
        sample: float | None = None,
        *,
        by: Actor = SERVER,
    ) -> None:
        """Sets `capture`, `capture_failed` and `capture_sample` of the project; None is the server's."""

    async def set_budget(self, project_id: int, budget_usd: Decimal | None, *, by: Actor = SERVER) -> None:
        """Sets the budget of the project; None lifts the limit."""

    async def set_allowed_models(
        self, project_id: int, patterns: Sequence[str] | None, *, by: Actor = SERVER
    ) -> None:
        """Sets which models the project's flows and callers may name; None leaves it to the server."""

    async def set_retention(self, project_id: int, retention: Retention, *, by: Actor = SERVER) -> None:
        """Sets how long the project's ended runs are kept; None leaves it to the server's default."""

    async def add_key(
        self,
        project_id: int,
        role: Role,
        digest: bytes,
        hint: str,
        *,
        most: int | None = None,
        by: Actor = SERVER,
    ) -> ApiKey:
        """Keeps a new key. Raises KeyLimitReached where the project has `most` keys that are not revoked."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """The key with this hash, revoked or not."""

    async def keys(self, project_id: int, *, after: int = 0, limit: int = sys.maxsize) -> list[ApiKey]:
        """The project's keys behind id `after`, oldest first; without `limit` all of them."""

    async def key(self, project_id: int, key_id: int) -> ApiKey | None: ...

    async def live_keys(self, key_ids: Iterable[int]) -> set[int]:
        """Those of these keys that are there and not revoked."""

    async def revoke_key(self, project_id: int, key_id: int, *, by: Actor = SERVER) -> bool:
        """Whether there was such a key and it was not revoked before."""

    async def add_viewer_session(
        self, session: ViewerSession, *, most_of_key: int, most_of_project: int
    ) -> None:
        """Keeps a new session. The one used longest ago goes where its key or project has so many."""

    async def viewer_session(self, digest: bytes) -> ViewerSession | None:
        """The session with this hash and its key, revoked or not: one look-up for both."""

    async def use_viewer_session(self, digest: bytes, used_at: str) -> None:
        """Notes when the session was used last."""

    async def end_viewer_session(self, digest: bytes) -> None:
        """Forgets the session, if there is one."""

    async def put_draft(
        self,
        project_id: int,
        slug: str,
        *,
        name: str | None,
        capture: CaptureMode | None,
        source: bytes,
        retention: Retention = NO_RETENTION,
        by: Actor = SERVER,
    ) -> FlowRecord:
        """Stores `source` as version 0 of the flow, which is created if it is new.

        Raises FlowRecorded for a flow that has recorded runs.
        """

    async def publish(self, flow_id: str, *, by: Actor = SERVER) -> int:
        """Copies the draft to the next version, makes that the production version and returns its number.

        That is the first one behind the newest that was published, and no number of an imported version. A
        draft equal to the production version is not copied again.
        """

    async def set_production(self, flow_id: str, version: int, *, by: Actor = SERVER) -> bool:
        """Makes a published version the production version; False if there is no such version.

        One that came with an imported run is none.
        """

    async def versions(self, flow_id: str, *, after: int = -1, limit: int = sys.maxsize) -> list[FlowVersion]:
        """The flow's versions behind number `after`, the draft first; without `limit` all of them."""

    async def delete_flow(self, flow_id: str, *, by: Actor = SERVER) -> int:
        """Deletes the flow, so that its slug is free, with the versions that none of its runs is of.

        Its runs stay, and keep the rest of it; `find_flow` and `flows` no longer have it. Returns how many of
        its runs have not ended: then nothing was done.
        """

    async def find_flow(self, project_id: int, slug: str) -> FlowRecord | None: ...
    async def flow(self, flow_id: str) -> FlowRecord | None: ...

    async def flows(self, project_id: int, *, after: str = "", limit: int = sys.maxsize) -> list[FlowRecord]:
        """The project's flows behind slug `after`, by slug; without `limit` all of them."""

    async def flow_source(self, flow_id: str, version: int) -> bytes | None: ...

    async def runnable_source(self, flow_id: str, version: int) -> bytes | None:
        """The source of a version that runs; None where there is none, or it came with an imported run."""

    async def audit(
        self,
        project_id: int | None,
        *,
        before: int | None = None,
        since: str | None = None,
        action: str | None = None,
        limit: int,
    ) -> list[AuditEntry]:
        """Entries of the audit log, newest first, from the one before id `before` on.

        `project_id` None: of every project. `since` is an ISO time as the store writes them.
        """

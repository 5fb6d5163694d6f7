"""The flows that `runglass flow` works on: those of a server, or of a data folder. Both answer alike."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends.local_store import DataFolder, in_new_project, in_project, terminal_user
from runglass.cli.backends.server import Server
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.config.settings import Settings
from runglass.errors import FlowFileError, Problem
from runglass.store.base import Store
from runglass.store.records import FlowRecord, Project
from runglass.wire.admin_api import FlowHistory, FlowInfo, FlowList, FlowTree, VersionInfo

if TYPE_CHECKING:
    from runglass.client.api.admin import Management
    from runglass.flows.parser import CheckedFlow

T = TypeVar("T")


@contextmanager
def open_backend(folder: DataFolder, server: Server) -> "Iterator[Management | LocalFlows]":
    """The flows of the server, where there is a key and no data folder is named; else of the data folder.

    Raises UsageError where only the server's address is given: a folder instead would be a surprise.
    """
    if folder != DataFolder(None, None) or not (server.api_key or server.base_url):
        yield LocalFlows(folder.settings())
    elif server.api_key:
        from runglass.client.api.admin import Management

        with server.connect() as client:
            yield Management(client)
    else:
        raise UsageError(
            f"there is no key for the server at {server.base_url}: give --api-key or set RUNGLASS_API_KEY,"
            " or name a data folder with --data"
        )


class LocalFlows:
    """The flows of a data folder, as `Management` has those of a server.

    Raises NotFound for a project, a flow or a version that does not exist. Only a push makes a folder or a
    project that is new.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def push(self, org: str, project: str, slug: str, text: bytes) -> None:
        """Stores the flow, as JSON, as the draft of its slug."""
        from runglass.flows.flow import decode_flow
        from runglass.runtime.runtime import push_flow

        flow, by = decode_flow(text), terminal_user()
        name = ProjectName(org, project)
        in_new_project(self._settings, name, lambda store, found: push_flow(store, found, flow, by=by))

    def publish(self, org: str, project: str, slug: str) -> int:
        """Makes the draft the production version; returns its number."""
        by = terminal_user()
        return self._in_flow(org, project, slug, lambda store, flow: store.publish(flow.id, by=by))

    def set_production(self, org: str, project: str, slug: str, version: int) -> None:
        """Makes a published version the production version."""
        by = terminal_user()
        if not self._in_flow(
            org, project, slug, lambda store, flow: store.set_production(flow.id, version, by=by)
        ):
            raise _no_version(org, project, slug, f"published version {version}")

    def flows(self, org: str, project: str) -> FlowList:
        """All flows, by slug."""
        found = in_project(
            self._settings, ProjectName(org, project), lambda store, found: store.flows(found.id)
        )
        flows = msgspec.convert(found, list[FlowInfo], from_attributes=True)
        return FlowList(org=org, project=project, flows=flows)

    def flow(self, org: str, project: str, slug: str) -> FlowHistory:
        """A flow and its versions, the draft, which is version 0, first."""

        async def read(store: Store, flow: FlowRecord) -> FlowHistory:
            about = msgspec.convert(flow, FlowInfo, from_attributes=True)
            versions = msgspec.convert(await store.versions(flow.id), list[VersionInfo], from_attributes=True)
            return FlowHistory(**msgspec.structs.asdict(about), versions=versions)

        return self._in_flow(org, project, slug, read)

    def flow_version(self, org: str, project: str, slug: str, version: int) -> FlowTree:
        """A version of a flow as JSON; 0 is the draft."""
        source = self._in_flow(org, project, slug, lambda store, flow: store.flow_source(flow.id, version))
        if source is None:
            raise _no_version(org, project, slug, f"version {version}")
        return msgspec.json.decode(source, type=FlowTree)

    def _in_flow(
        self, org: str, project: str, slug: str, work: Callable[[Store, FlowRecord], Awaitable[T]]
    ) -> T:
        name = ProjectName(org, project)

        async def found(store: Store, owner: Project) -> T:
            flow = await store.find_flow(owner.id, slug)
            if flow is None:
                raise NotFound(
                    f"{name} has no flow {slug!r}; `runglass flow list {name}` shows which there are"
                )
            return await work(store, flow)

        return in_project(self._settings, name, found)


def _no_version(org: str, project: str, slug: str, what: str) -> NotFound:
    flow = f"{org}/{project}/{slug}"
    return NotFound(f"{flow} has no {what}; `runglass flow show {flow}` shows which there are")


def read_flow(file: Path) -> "CheckedFlow":
    """The flow in a file, and warnings. Raises FlowFileError, also for a file that cannot be read."""
    # Imported here: reading YAML takes a library that most commands can do without.
    from runglass.flows.parser import check_flow

    try:
        text = file.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FlowFileError([Problem(f"the file cannot be read: {reason}")], file=str(file)) from error
    return check_flow(text, file=str(file))

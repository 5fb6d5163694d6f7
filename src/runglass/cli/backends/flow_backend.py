"""The flows that `runglass flow` works on: those of a server, or of a data folder. Both answer alike."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.connection import connect
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.config.settings import Settings
from runglass.errors import FlowFileError, Problem
from runglass.store.base import Store
from runglass.store.records import FlowRecord
from runglass.wire.admin_api import FlowHistory, FlowInfo, FlowTree, VersionInfo

if TYPE_CHECKING:
    from runglass.client.api.admin import Management
    from runglass.flows.flow import Flow
    from runglass.flows.parser import CheckedFlow


class FlowBackend(Protocol):
    """Flows of any project, by its name.

    Raises NotFound or FlowNotFoundError for a project, a flow or a version that does not exist.
    """

    def push(self, name: ProjectName, flow: "Flow") -> None:
        """Stores the flow as a draft."""

    def publish(self, name: ProjectName, slug: str) -> int:
        """Makes the draft the production version; returns its number."""

    def set_production(self, name: ProjectName, slug: str, version: int) -> None:
        """Makes a published version the production version."""

    def flows(self, name: ProjectName) -> list[FlowInfo]: ...
    def flow(self, name: ProjectName, slug: str) -> FlowHistory: ...
    def tree(self, name: ProjectName, slug: str, version: int) -> FlowTree: ...


@contextmanager
def open_backend(
    data: Path | None, store: str | None, base_url: str | None, api_key: str | None
) -> Iterator[FlowBackend]:
    """The flows of the server, where there is a key and no data folder is named; else of the data folder.

    Raises UsageError where only the server's address is given: a folder instead would be a surprise.
    """
    if api_key and data is None and store is None:
        from runglass.client.api.admin import Management

        with connect(base_url, api_key) as client:
            yield RemoteFlows(Management(client))
    elif base_url and data is None and store is None:
        raise UsageError(
            f"there is no key for the server at {base_url}: give --api-key or set RUNGLASS_API_KEY, or name"
            " a data folder with --data"
        )
    else:
        yield LocalFlows(local_store.data_settings(data, store))


class RemoteFlows:
    """The flows of a server, seen with a key of one project."""

    def __init__(self, management: "Management") -> None:
        self._management = management

    def push(self, name: ProjectName, flow: "Flow") -> None:
        self._management.push(name.org, name.project, flow.slug, flow.encode())

    def publish(self, name: ProjectName, slug: str) -> int:
        return self._management.publish(name.org, name.project, slug)

    def set_production(self, name: ProjectName, slug: str, version: int) -> None:
        self._management.set_production(name.org, name.project, slug, version)

    def flows(self, name: ProjectName) -> list[FlowInfo]:
        return self._management.flows(name.org, name.project).flows

    def flow(self, name: ProjectName, slug: str) -> FlowHistory:
        return self._management.flow(name.org, name.project, slug)

    def tree(self, name: ProjectName, slug: str, version: int) -> FlowTree:
        return self._management.flow_version(name.org, name.project, slug, version)


class LocalFlows:
    """The flows of a data folder. Only a push makes a folder or a project that is new."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def push(self, name: ProjectName, flow: "Flow") -> None:
        from runglass.runtime.runtime import push_flow

        async def work() -> None:
            async with local_store.any_store(self._settings) as store:
                project = await local_store.make_project(store, name)
                await push_flow(store, project, flow, by=local_store.terminal_user())

        asyncio.run(work())

    def publish(self, name: ProjectName, slug: str) -> int:
        async def work() -> int:
            async with self._found(name, slug) as (store, flow):
                return await store.publish(flow.id, by=local_store.terminal_user())

        return asyncio.run(work())

    def set_production(self, name: ProjectName, slug: str, version: int) -> None:
        async def work() -> None:
            async with self._found(name, slug) as (store, flow):
                if not await store.set_production(flow.id, version, by=local_store.terminal_user()):
                    raise NotFound(
                        f"{name}/{slug} has no published version {version}; `runglass flow show"
                        f" {name}/{slug}` shows which there are"
                    )

        asyncio.run(work())

    def flows(self, name: ProjectName) -> list[FlowInfo]:
        async def work() -> list[FlowInfo]:
            async with local_store.existing_store(self._settings) as store:
                project = await local_store.existing_project(store, name)
                return msgspec.convert(await store.flows(project.id), list[FlowInfo], from_attributes=True)

        return asyncio.run(work())

    def flow(self, name: ProjectName, slug: str) -> FlowHistory:
        async def work() -> FlowHistory:
            async with self._found(name, slug) as (store, flow):
                about = msgspec.convert(flow, FlowInfo, from_attributes=True)
                versions = msgspec.convert(
                    await store.versions(flow.id), list[VersionInfo], from_attributes=True
                )
                return FlowHistory(**msgspec.structs.asdict(about), versions=versions)

        return asyncio.run(work())

    def tree(self, name: ProjectName, slug: str, version: int) -> FlowTree:
        async def work() -> FlowTree:
            async with self._found(name, slug) as (store, flow):
                source = await store.flow_source(flow.id, version)
                if source is None:
                    raise _no_version(name, slug, version)
                return msgspec.json.decode(source, type=FlowTree)

        return asyncio.run(work())

    @asynccontextmanager
    async def _found(self, name: ProjectName, slug: str) -> AsyncIterator[tuple[Store, FlowRecord]]:
        async with local_store.existing_store(self._settings) as store:
            project = await local_store.existing_project(store, name)
            flow = await store.find_flow(project.id, slug)
            if flow is None:
                raise NotFound(
                    f"{name} has no flow {slug!r}; `runglass flow list {name}` shows which there are"
                )
            yield store, flow


def _no_version(name: ProjectName, slug: str, version: int) -> NotFound:
    return NotFound(
        f"{name}/{slug} has no version {version}; `runglass flow show {name}/{slug}` shows which there are"
    )


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

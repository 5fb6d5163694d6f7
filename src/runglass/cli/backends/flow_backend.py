"""Flows of a server or of a data folder, which answer alike, and a folder of flow files that is published."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from runglass.cli.argument_parsers import ProjectName, project_name
from runglass.cli.backends.local_store import DataFolder, in_new_project, in_project, terminal_user
from runglass.cli.backends.server import Server
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.config.settings import Settings
from runglass.errors import FlowFileError, Problem, RunglassError, StoreError
from runglass.store.protocols.catalog import Catalog
from runglass.store.records import FlowRecord, Project
from runglass.wire.admin_api import FlowHistory, FlowInfo, FlowList, FlowTree, VersionInfo

if TYPE_CHECKING:
    from runglass.client.api.admin import Management
    from runglass.flows.flow import Flow
    from runglass.runtime.runtime import Runtime

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

    def push(self, org: str, project: str, slug: str, flow: "Flow") -> None:
        """Stores the flow as the draft of its slug."""
        from runglass.runtime.policy import RunPolicy
        from runglass.runtime.runtime import push_flow

        async def store_draft(store: Catalog, found: Project) -> None:
            RunPolicy(store, self._settings).check_flow(found, flow)
            await push_flow(store, found, flow, by=terminal_user())

        in_new_project(self._settings, ProjectName(org, project), store_draft)

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

        async def read(store: Catalog, flow: FlowRecord) -> FlowHistory:
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
        self, org: str, project: str, slug: str, work: Callable[[Catalog, FlowRecord], Awaitable[T]]
    ) -> T:
        name = ProjectName(org, project)

        async def found(store: Catalog, owner: Project) -> T:
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


class ReadFlow(NamedTuple):
    """A flow, warnings for its author, and the text of its file."""

    flow: "Flow"
    warnings: list[Problem]
    text: bytes


def read_flow(file: Path, settings: Settings) -> ReadFlow:
    """The flow in a file. Raises FlowFileError, also for a file that cannot be read."""
    # Imported here: reading YAML takes a library that most commands can do without.
    from runglass.flows.parser import check_flow

    text = _text_of(file, settings.flow_limit_bytes)
    checked = check_flow(
        text,
        file=str(file),
        own_providers=settings.providers,
        limit_characters=settings.flow_limit_bytes,
        schema_limit_bytes=settings.schema_limit_bytes,
    )
    return ReadFlow(*checked, text)


def _text_of(file: Path, limit_characters: int) -> bytes:
    """The text, or as much of it as shows that it is too large. Raises FlowFileError."""
    try:
        with file.open("rb") as opened:
            return opened.read(4 * limit_characters + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FlowFileError([Problem(f"the file cannot be read: {reason}")], file=str(file)) from error


SUFFIXES = frozenset({".yaml", ".yml", ".json"})

FlowName = tuple[ProjectName, str]
FileStamp = tuple[int, int, int]
"""Time, size and inode of a file: it has changed where one of them differs."""


class FlowFolder:
    """A folder of flow files, ORG/PROJECT/*.yaml, published by a server; `report` hears the outcome of each.

    The folder is the truth, and a notice from the operating system only a reason to look at it: what a notice
    misses, as on a network drive, the next look finds. A file with mistakes is reported and the version
    before it stays; a file that goes away changes nothing. Where no notice comes, it looks each `look_s`.
    """

    def __init__(
        self, folder: Path, runtime: "Runtime", *, report: Callable[[str], None], look_s: float = 2.0
    ) -> None:
        self._folder = folder
        self._runtime = runtime
        self._report = report
        self._look_s = look_s
        self._stamps: dict[Path, FileStamp] = {}
        self._owners: dict[FlowName, Path] = {}
        self._waiting: dict[Path, FlowName] = {}

    async def watch(self) -> None:
        """Publishes files that change, until cancelled."""
        # Imported here: a server without such a folder does not hold the library.
        from watchfiles import awatch

        try:
            async for _ in awatch(
                self._folder, yield_on_timeout=True, rust_timeout=int(self._look_s * 1000), recursive=True
            ):
                await self.scan()
        except OSError as error:
            self._report(f"flows: no notices of changes ({error}); looking every {self._look_s:g} s instead")
        while True:
            await asyncio.sleep(self._look_s)
            await self.scan()

    async def scan(self) -> None:
        """Publishes every file that is new or has changed since the last look."""
        for path, stamp in _files(self._folder):
            taken = self._waiting.get(path)
            if self._stamps.get(path) == stamp and (taken is None or self._owner(taken)):
                continue
            try:
                await self._publish(path)
            except StoreError as error:
                self._report(f"flows: {path} is not published yet: {error}")
                continue
            except RunglassError as error:
                self._report(f"flows: {path} is not published, what was published before stays:\n{error}")
            self._stamps[path] = stamp

    async def _publish(self, path: Path) -> None:
        from runglass.runtime.runtime import push_flow

        self._waiting.pop(path, None)
        parts = path.relative_to(self._folder).parts
        if len(parts) != 3:
            raise UsageError(f"it does not lie in a folder ORG/PROJECT of {self._folder}")
        name = project_name(f"{parts[0]}/{parts[1]}")
        runtime = self._runtime
        text = await asyncio.to_thread(_text_of, path, runtime.settings.flow_limit_bytes)
        try:
            # In a process, as a push: the event loop would stand still for seconds. No project has the id 0.
            flow, warnings = await runtime.checks.flow_file(
                text, own_providers=runtime.settings.providers, project_id=0
            )
        except FlowFileError as error:
            raise FlowFileError(error.problems, file=str(path), warnings=error.warnings) from error
        wanted = (name, flow.slug)
        # A file has one flow, and what it held before is for others to take.
        self._owners = {each: file for each, file in self._owners.items() if file != path}
        if owner := self._owner(wanted):
            self._waiting[path] = wanted
            raise UsageError(
                f"the flow {flow.slug!r} of {name} comes from {owner} already; give one another slug"
            )
        self._owners[wanted] = path
        project = await runtime.store.ensure_project(name.org, name.project)
        runtime.policy.check_flow(project, flow)
        record = await push_flow(runtime.store, project, flow)
        version = await runtime.store.publish(record.id)
        self._report(f"flows: {name}/{flow.slug} is published as version {version}")
        for warning in warnings:
            self._report(f"flows: warning: {warning.located(str(path))}")

    def _owner(self, flow: FlowName) -> Path | None:
        """The file that the flow comes from, while it is there."""
        owner = self._owners.get(flow)
        return owner if owner is not None and owner.exists() else None


def _files(folder: Path) -> Iterator[tuple[Path, FileStamp]]:
    for pattern in ("*", "*/*", "*/*/*"):
        for path in sorted(folder.glob(pattern)):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.suffix not in SUFFIXES or hidden:
                continue
            try:
                stat = path.stat()
            except OSError:
                # The file is gone since the folder was listed; if it comes back, the next look finds it.
                continue
            if path.is_file():
                yield path, (stat.st_mtime_ns, stat.st_size, stat.st_ino)

"""Flow files: one that is read and checked here, and a folder of them that a server keeps published."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runglass.cli.argument_parsers import FlowName, project_name
from runglass.cli.exit_codes import UsageError
from runglass.config.settings import Settings
from runglass.errors import FlowFileError, Problem, RunglassError, StoreError

if TYPE_CHECKING:
    from runglass.flows.parser import CheckedFlow
    from runglass.runtime.runtime import Runtime


def read_flow(file: Path, settings: Settings) -> tuple["CheckedFlow", bytes]:
    """The flow in a file, and its text. Raises FlowFileError, also for a file that cannot be read."""
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
    return checked, text


def _text_of(file: Path, limit_characters: int) -> bytes:
    """The text, or as much of it as shows that it is too large. Raises FlowFileError."""
    try:
        with file.open("rb") as opened:
            return opened.read(4 * limit_characters + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FlowFileError([Problem(f"the file cannot be read: {reason}")], file=str(file)) from error


LOOK_S = 0.5
SUFFIXES = frozenset({".yaml", ".yml", ".json"})

FileStamp = tuple[int, int, int]
"""Time, size and inode of a file: it has changed where one of them differs."""


class FlowFolder:
    """A folder of flow files, ORG/PROJECT/*.yaml, published by a server; `report` hears the outcome of each.

    It is looked at each `LOOK_S`: on a network drive no notice of changes comes. A file with mistakes is
    reported and the version before it stays; a file that goes away changes nothing.
    """

    def __init__(self, folder: Path, runtime: "Runtime", *, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._runtime = runtime
        self._report = report
        self._stamps: dict[Path, FileStamp] = {}
        self._owners: dict[FlowName, Path] = {}
        self._waiting: dict[Path, FlowName] = {}

    async def watch(self) -> None:
        """Publishes files that change, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.scan()

    async def scan(self) -> None:
        """Publishes every file that is new or has changed since the last look."""
        for path, stamp in await asyncio.to_thread(lambda: list(_files(self._folder))):
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
        wanted = FlowName(name, flow.slug)
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

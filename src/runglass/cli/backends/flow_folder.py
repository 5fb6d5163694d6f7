"""A folder of flow files, ORG/PROJECT/*.yaml, whose files are published when they change.

The folder is the truth, and a notice from the operating system only a reason to look at it: what a notice
misses, as on a network drive, the next look finds. A file with mistakes is reported and the version before it
stays; a file that goes away changes nothing.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from watchfiles import awatch

from runglass.cli.argument_parsers import ProjectName, project_name
from runglass.cli.backends.flow_backend import read_flow
from runglass.cli.exit_codes import UsageError
from runglass.errors import RunglassError, StoreError
from runglass.runtime.runtime import push_flow
from runglass.store.base import Store

SUFFIXES = frozenset({".yaml", ".yml", ".json"})

FileStamp = tuple[int, int, int]
"""Time, size and inode of a file: it has changed where one of them differs."""


class FlowFolder:
    """Publishes the folder's files into `store`; `report` gets a sentence on the outcome of each.

    Where no notice comes, it looks at the folder each `look_s`.
    """

    def __init__(
        self, folder: Path, store: Store, *, report: Callable[[str], None], look_s: float = 2.0
    ) -> None:
        self._folder = folder
        self._store = store
        self._report = report
        self._look_s = look_s
        self._stamps: dict[Path, FileStamp] = {}
        self._owners: dict[tuple[ProjectName, str], Path] = {}

    async def watch(self) -> None:
        """Publishes files that change, until cancelled."""
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
            if self._stamps.get(path) == stamp:
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
        parts = path.relative_to(self._folder).parts
        if len(parts) != 3:
            raise UsageError(f"it does not lie in a folder ORG/PROJECT of {self._folder}")
        name = project_name(f"{parts[0]}/{parts[1]}")
        flow, warnings = read_flow(path)
        owner = self._owners.get((name, flow.slug))
        if owner not in (None, path) and owner.exists():
            raise UsageError(
                f"the flow {flow.slug!r} of {name} comes from {owner} already; give one another slug"
            )
        project = await self._store.ensure_project(name.org, name.project)
        record = await push_flow(self._store, project, flow)
        version = await self._store.publish(record.id)
        self._owners[name, flow.slug] = path
        self._report(f"flows: {name}/{flow.slug} is published as version {version}")
        for warning in warnings:
            self._report(f"flows: warning: {warning.located(str(path))}")


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

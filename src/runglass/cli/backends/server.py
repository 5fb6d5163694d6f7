"""The server that a command works on, and runs on it: the newest that fit a query, the one that is named.

All commands about flows and runs speak to a server. A data folder is opened by a server in this process.

A run is named by its id, by the beginning or end of it, or as `last`.
"""

import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import islice
from typing import NamedTuple

from runglass.cli import argument_parsers
from runglass.cli.argument_parsers import FlowName, ProjectName
from runglass.cli.backends.local_server import in_process
from runglass.cli.backends.local_store import DataFolder, speaks_to
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.cli.terminal.outline_rows import OutlineRows, StepAddress
from runglass.client import Client, Run
from runglass.client.api.admin import Management
from runglass.client.core import requests
from runglass.errors import api_error
from runglass.log.trace import RunStatus, StepTrace
from runglass.wire.run_api import RunPage

MOST_PER_PAGE = 100
NEWEST = 200
"""A part of an id must be unique among this many of the newest runs."""

FURTHEST = 10_000
"""A part of an id that none of the newest runs has is looked for in this many."""

MOST_BEGINNINGS = 3
"""How often an outline is begun again because the run has gone on meanwhile."""

_LEAST_CHARS = 4
_PART = re.compile(r"[0-9a-f-]+", re.IGNORECASE | re.ASCII)
_WORD = re.compile(r'[^\s:"]+')
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


class Server(NamedTuple):
    """Where a command finds flows and runs: a server, or a data folder that one in this process opens.

    `base_url` and `api_key` may each be None or empty. Where no key and no folder is named, `or_folder` means
    the folder that `runglass serve` takes. `project` is one of the folder's.
    """

    base_url: str | None
    api_key: str | None
    folder: DataFolder
    project: ProjectName | None = None
    or_folder: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether a data folder is meant, which it is where one is named. Raises UsageError."""
        if self.folder != DataFolder():
            return True
        if self.or_folder and self.base_url and not self.api_key:
            # A folder instead would be a surprise.
            raise UsageError(
                f"there is no key for the server at {self.base_url}: give --api-key or set RUNGLASS_API_KEY,"
                " or name a data folder with --data"
            )
        return self.or_folder and not self.api_key

    @property
    def options(self) -> str:
        """What a further command needs behind a run's id to find the same data folder; empty for a server."""
        given = {"--data": self.folder.data, "--store": self.folder.store, "--project": self.project}
        return "".join(
            f" {name} {shlex.quote(str(each))}" for name, each in given.items() if each is not None
        )

    @contextmanager
    def connect(
        self, project: ProjectName | None = None, *, executes: bool = False, create: bool | None = None
    ) -> Iterator[Client]:
        """A client for the server; of a data folder as `in_process` has it, for `project` or its own one.

        Raises UsageError, AuthenticationError, and as `in_process` does.
        """
        if self.is_folder:
            settings, name = self.folder.settings(), project or self.project
            with in_process(settings, name, executes=executes, create=create) as client:
                yield client
            return
        if create:
            raise UsageError(
                "--create is for a data folder (--data); on a server the project is that of the key"
            )
        if not self.api_key:
            settings = DataFolder().settings()
            why = "there is no API key: give --api-key or set RUNGLASS_API_KEY, after `runglass keys create`"
            if settings.store is None and settings.database.exists():
                why += f"; the data folder here needs no key: --data {shlex.quote(str(settings.data))}"
            raise api_error("UNAUTHENTICATED", why)
        with client_of(self.api_key, self.base_url or None) as client:
            speaks_to(client._transport.endpoint.base_url)
            yield client


def client_of(api_key: str, base_url: str | None) -> Client:
    """A client. Raises AuthenticationError and UsageError."""
    try:
        client = Client(api_key, base_url=base_url)
        # Made here and not by the first call, as it also judges the environment's proxies.
        _ = client._transport
        return client
    except ValueError as error:
        raise UsageError(str(error)) from error


def names_run(name: str) -> bool:
    """Whether the text is meant as a run and not as a query: a word, without a field or quotes."""
    return _WORD.fullmatch(name) is not None


def named_run(client: Client, name: str) -> Run:
    """The run that an id, the beginning or the end of one, or `last` names. Raises NotFound, UsageError."""
    if _UUID.fullmatch(name):
        return client.run(name.lower())
    if name == "last":
        newest = client.runs(limit=1).runs
        if not newest:
            raise NotFound("there is no run yet that this key may see")
        return client.run(newest[0].id)
    if len(name) < _LEAST_CHARS or not _PART.fullmatch(name):
        raise UsageError(
            f"{name!r} does not name a run: write its id, at least {_LEAST_CHARS} characters of its end or"
            " beginning, or last"
        )
    part, found = name.lower(), list[str]()
    for number, run in enumerate(islice(client.runs(limit=MOST_PER_PAGE), FURTHEST)):
        if number >= NEWEST and found:
            break
        if run.id.endswith(part) or run.id.startswith(part):
            found.append(run.id)
    if not found:
        raise NotFound(
            f"none of the newest {FURTHEST:,} runs that this key may see has an id that ends or begins with"
            f" {part!r}; `runglass runs list` shows the newest"
        )
    if len(found) > 1:
        shown = "\n  ".join(
            [f"{part!r} is a part of {len(found)} ids; write more of the one you mean:", *found[:10]]
        )
        raise UsageError(shown)
    return client.run(found[0])


def flow_address(client: Client, flow: FlowName) -> tuple[ProjectName, str]:
    """The project and slug of a flow; one that is named by its slug alone is of the key's project."""
    name, slug = flow
    if name is None:
        own = Management(client).own_flows()
        name = ProjectName(own.org, own.project)
    return name, slug


def flow_id(client: Client, flow: str) -> str:
    """The id of the flow that is named by id, SLUG or ORG/PROJECT/SLUG. Raises FlowNotFoundError."""
    if _UUID.fullmatch(flow):
        return flow
    name, slug = flow_address(client, argument_parsers.flow_name(flow))
    call = requests.flow_id(client.flow(f"{name}/{slug}")._address)
    return client._transport.call(call, timeout=None).id


def newest_runs(
    client: Client,
    *,
    query: str | None = None,
    flow: str | None = None,
    status: RunStatus | None = None,
    since: datetime | None = None,
    limit: int,
    patience_s: float = 20.0,
) -> RunPage:
    """Up to `limit` runs, newest first, from as many pages as that takes; fewer after `patience_s`."""
    of_flow = None if flow is None else flow_id(client, flow)
    read = partial(client.runs, query=query, flow_id=of_flow, status=status, since=since)
    until_s = time.monotonic() + patience_s
    first = page = read(limit=min(limit, MOST_PER_PAGE))
    runs = list(page.runs)
    while page.next_cursor is not None and len(runs) < limit and time.monotonic() <= until_s:
        page = read(limit=min(limit - len(runs), MOST_PER_PAGE), cursor=page.next_cursor)
        runs += page.runs
    return RunPage(runs=runs, next_cursor=page.next_cursor, last_change=first.last_change)


def read_outline(run: Run, *, page_rows: int = 100_000, most_rows: int = 1_000_000) -> OutlineRows:
    """The rows of the run, all of one moment where the server still has it. Raises as `Run.outline` does.

    What a run has beyond `most_rows` is not read.
    """
    rows, beginnings = OutlineRows(), 1
    page = run.outline(limit=page_rows)
    rows.add(page)
    while len(rows) < min(rows.total, most_rows):
        following = run.outline(after=len(rows) - 1, limit=page_rows, seq=page.seq)
        if following.seq != page.seq:
            if beginnings == MOST_BEGINNINGS:
                break
            beginnings += 1
            rows, following = OutlineRows(), run.outline(limit=page_rows)
        page = following
        rows.add(page)
    rows.finish()
    return rows


def read_attempt(run: Run, address: StepAddress) -> StepTrace:
    """The attempt. Raises as `Run.step_trace` does."""
    step_id, loop_path, attempt = address
    return run.step_trace(step_id, attempt=attempt, loop_index=loop_path or None)

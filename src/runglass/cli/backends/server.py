"""The server that a command works on, and runs on it: the newest that fit a query, the one that is named.

A run is named by its id, by the beginning or end of it, or as `last`.
"""

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from runglass.cli import argument_parsers
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.log.trace import RunStatus, RunSummary
from runglass.wire.run_api import RunPage

if TYPE_CHECKING:
    from runglass.client import Client, Run
    from runglass.client.aio.client import AsyncClient

MOST_PER_PAGE = 100
NEWEST = 200
"""A part of an id must be unique among this many of the newest runs."""

FURTHEST = 10_000
"""A part of an id that none of the newest runs has is looked for in this many."""

_LEAST_CHARS = 4
_PART = re.compile(r"[0-9a-f-]+", re.IGNORECASE | re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


class Server(NamedTuple):
    """What the options `--base-url` and `--api-key`, or their variables, name; each may be None or empty."""

    base_url: str | None
    api_key: str | None

    def connect(self) -> "Client":
        """A client for the server. Raises UsageError, AuthenticationError."""
        # Imported when called, as in `connect_async`: commands without a server are not to wait for HTTP.
        from runglass.client import Client

        try:
            client = Client(self.api_key or None, base_url=self.base_url or None)
            # Made here and not by the first call, as it also judges the proxies that the environment names.
            _ = client._transport
            return client
        except ValueError as error:
            raise UsageError(str(error)) from error

    def connect_async(self) -> "AsyncClient":
        """As `connect`, for commands that do several things at once."""
        from runglass.client.aio.client import AsyncClient

        try:
            return AsyncClient(self.api_key or None, base_url=self.base_url or None)
        except ValueError as error:
            raise UsageError(str(error)) from error


def names_run(name: str) -> bool:
    """Whether the text is an id, a part of one, or `last`."""
    return name == "last" or (len(name) >= _LEAST_CHARS and _PART.fullmatch(name) is not None)


def named_run(client: "Client", name: str) -> "Run":
    """The run that an id, the beginning or the end of one, or `last` names. Raises NotFound, UsageError."""
    if _UUID.fullmatch(name):
        return client.run(name.lower())
    if name == "last":
        newest = client.runs(limit=1).runs
        if not newest:
            raise NotFound("there is no run yet that this key may see")
        return client.run(newest[0].id)
    if not names_run(name):
        raise UsageError(
            f"{name!r} does not name a run: write its id, at least {_LEAST_CHARS} characters of its end or"
            " beginning, or last"
        )
    part = name.lower()
    found: list[str] = []
    for number, run in enumerate(client.runs(limit=MOST_PER_PAGE), start=1):
        if run.id.endswith(part) or run.id.startswith(part):
            found.append(run.id)
        if (number >= NEWEST and found) or number == FURTHEST:
            break
    if not found:
        raise NotFound(
            f"none of the newest {FURTHEST:,} runs that this key may see has an id that ends or begins with"
            f" {part!r}; `runglass runs list` shows the newest"
        )
    if len(found) > 1:
        shown = "".join(f"\n  {run_id}" for run_id in found[:10])
        more = f"\n  and {len(found) - 10} more" if len(found) > 10 else ""
        raise UsageError(
            f"{part!r} is a part of {len(found)} ids; write more of the one you mean:{shown}{more}"
        )
    return client.run(found[0])


def flow_id(client: "Client", flow: str) -> str:
    """The id of the flow that is named by id, SLUG or ORG/PROJECT/SLUG. Raises NotFound."""
    if _UUID.fullmatch(flow):
        return flow
    from runglass.client.api.admin import Management

    management = Management(client)
    if "/" in flow:
        name, slug = argument_parsers.flow_name(flow)
        listed = management.flows(name.org, name.project)
    else:
        slug, listed = flow, management.own_flows()
    for each in listed.flows:
        if each.slug == slug:
            return each.id
    raise NotFound(
        f"{listed.org}/{listed.project} has no flow {slug!r};"
        f" `runglass flow list {listed.org}/{listed.project}` shows which there are"
    )


def newest_runs(
    client: "Client",
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
    runs: list[RunSummary] = []
    cursor: str | None = None
    last_change: int | None = None
    until_s = time.monotonic() + patience_s
    while True:
        page = client.runs(
            query=query,
            flow_id=of_flow,
            status=status,
            since=since,
            limit=min(limit - len(runs), MOST_PER_PAGE),
            cursor=cursor,
        )
        cursor = page.next_cursor
        runs += page.runs
        last_change = page.last_change if last_change is None else last_change
        if cursor is None or len(runs) >= limit or time.monotonic() > until_s:
            return RunPage(runs=runs, next_cursor=cursor, last_change=last_change)

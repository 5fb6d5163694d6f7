"""The client: one server, one key, and from there to flows and runs.

Only describes calls and hands them on.
"""

import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, overload

from runglass.client.aio.flows import AsyncFlow
from runglass.client.aio.native import AsyncRunPages, Connected, pages_of
from runglass.client.aio.runs import AsyncRun
from runglass.client.core import requests
from runglass.client.core.connection import endpoint
from runglass.client.core.requests import Time
from runglass.client.core.sessions import Session
from runglass.client.core.stream_cursor import ListCursor
from runglass.errors import ReplayError
from runglass.log.trace import RunStatus, RunSummary
from runglass.wire.run_api import RunChange
from runglass.wire.session import SessionExecution

if TYPE_CHECKING:
    from runglass.client.core.replay import Match, Replay


class AsyncClient(Connected):
    """A Runglass server, seen with one API key.

    `api_key` and `base_url` come from RUNGLASS_API_KEY and RUNGLASS_BASE_URL where they are not given. The
    URL is what `runglass serve` prints, `http://HOST:PORT`, with or without `/api/v1`; behind a proxy it is
    whatever path leads to the API. `org` and `project` complete a flow that is named by its slug alone.
    `timeout` bounds each call in seconds by the wall clock (None: no bound) and `max_retries` says how often
    one is tried again where that is safe. `session_id`, a UUID, tags every run that is started from here.

    Raises AuthenticationError for a key that is missing or cannot be one, ValueError for a `base_url`, a
    number or a session that cannot be used, and at the latest with the first flow or run for a proxy of the
    environment. The server is asked nothing yet.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        org: str | None = None,
        project: str | None = None,
        timeout: float | None = 60.0,
        max_retries: int = 2,
        session_id: str | uuid.UUID | None = None,
    ) -> None:
        self._org = org
        self._project = project
        super().__init__(
            endpoint(
                api_key=api_key,
                base_url=base_url,
                timeout=timeout,
                max_retries=max_retries,
                session_id=session_id,
            )
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._endpoint.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()

    def flow(
        self,
        path: str | None = None,
        *,
        org: str | None = None,
        project: str | None = None,
        slug: str | None = None,
    ) -> AsyncFlow:
        """The flow named "org/project/slug", or by its slug alone, or by its parts.

        What is left out comes from the client's `org` and `project`. Raises ValueError for a missing part.
        """
        address = requests.flow_address(
            path,
            org=org,
            project=project,
            slug=slug,
            default_org=self._org,
            default_project=self._project,
        )
        return AsyncFlow(self._transport, address)

    def run(self, execution_id: str | uuid.UUID) -> AsyncRun:
        """The run with that id, whichever flow it is of. Asks the server nothing yet."""
        return AsyncRun(self._transport, requests.run_path(execution_id), str(execution_id))

    def runs(
        self,
        *,
        query: str | None = None,
        flow_id: str | uuid.UUID | None = None,
        flow: str | None = None,
        status: RunStatus | None = None,
        since: Time | None = None,
        until: Time | None = None,
        limit: int = 20,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> AsyncRunPages:
        """The runs that the key may see, newest first: `for run in client.runs()` goes through all.

        They come in pages of at most `limit` (1 to 100), each fetched when the loop comes to it. What is
        returned is the first page, with its `runs` and `next_cursor`; `cursor` is the `next_cursor` of the
        page before. With AsyncClient, `await` gives the page and `async for` walks through all.

        `query` is a text such as `status:failed flow:grade-3 since:24h`, see docs/queries.md; the other
        arguments narrow it down. A page of a query that takes long to search for may have few runs, or none,
        and not be the last one. `flow`, the slug of a flow, or `flow_id` asks for its runs alone; `since` and
        `until` for those that were created from then on and before then, an aware datetime or ISO 8601 text
        (UTC unless it says otherwise; a date is its midnight).

        Raises FlowNotFoundError for an unknown slug, RequestError for a query that cannot be read,
        ValueError, APITimeoutError, APIConnectionError.
        """
        call = requests.runs(
            query=query,
            flow_id=flow_id,
            flow=flow,
            status=status,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
        )
        return pages_of(self._transport, call, timeout=timeout)

    def live_runs(
        self,
        *,
        query: str | None = None,
        flow_id: str | uuid.UUID | None = None,
        flow: str | None = None,
        status: RunStatus | None = None,
        since: Time | None = None,
        until: Time | None = None,
        after: int | None = None,
    ) -> AsyncGenerator[RunChange, None]:
        """Each run of the query when it is created and when its status changes, for as long as you listen.

        What is asked for is said as with `runs`. It begins with what changes from now on; with `after`, the
        `last_change` of a page or the `number` of a change, behind that, so that nothing is missed. Of a run
        that changed several times meanwhile comes the newest state alone. A lost connection is opened again
        behind the last change. Closing the generator closes the connection.

        Raises ValueError at once; FlowNotFoundError, RequestError for a query that cannot be read, and
        their like from the first change on, and APIConnectionError when the stream cannot be had back.
        """
        page = requests.runs(query=query, flow_id=flow_id, flow=flow, status=status, since=since, until=until)
        attempts = self._endpoint.max_retries + 1
        return self._transport.follow(ListCursor(page, after=after, first_attempts=attempts))

    async def import_run(self, file: IO[bytes]) -> RunSummary:
        """Makes the run of a file that `run.export()` has written, json or jsonl: same id, same trace.

        All of it or nothing; it must have ended. The key must have the role `admin`. Nothing is tried again.

        Raises ValueError for a file that is not open for bytes, RequestError for one that is none, or a run
        or flow that is there already, PermissionDeniedError, APIConnectionError, after which the run may have
        been imported.
        """
        return await self._transport.upload(requests.import_run(file), file)

    @overload
    def session(self, *, id: str | uuid.UUID | None = None) -> Session: ...

    @overload
    def session(
        self, session_id: str | uuid.UUID, *, limit: int | None = None
    ) -> AsyncGenerator[SessionExecution, None]: ...

    def session(
        self,
        session_id: str | uuid.UUID | None = None,
        *,
        id: str | uuid.UUID | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[SessionExecution, None] | Session:
        """A session to make calls in, or with `session_id`, every run of that one.

        `with client.session() as session:` tags each run that is started inside, by whichever client, with
        `session.id`: a new UUID, or the given `id`. As a decorator it does so for each call of a function.
        Blocks may be nested, and the innermost one counts. A client that was made with a `session_id`, and
        a call with one, keep theirs; such a client has no other session (ValueError).

        The runs of a session come oldest first, with what their steps left behind, in pages of `limit` (1 to
        100; by default as many as the server sends at once), each fetched when the loop comes to it. Raises
        FlowNotFoundError for an unknown session, APITimeoutError, APIConnectionError.
        """
        if session_id is not None:
            return self._executions(session_id, limit)
        own = self._endpoint.session_id
        session = Session(own if id is None else id)
        if own is not None and session.id != own:
            raise ValueError(f"this client belongs to session {own!r}, and its calls cannot be in another")
        return session

    @asynccontextmanager
    async def replay(
        self, session_id: str | uuid.UUID, *, match: "Match" = "input", strict: bool = False
    ) -> AsyncGenerator["Replay", None]:
        """Answers the calls of this client inside the block from the runs of a session.

        The n-th call of a method (`execute`, `execute_async`, `steps` or `events`) of a flow with the same
        input gets what the n-th one in the session got: its result, its pauses for tools, its exception. No
        model is called and nothing is run; runs can be read as always, and nothing else is sent. A call that
        no run answers raises ReplayMiss, which names the nearest one. `replay.left_over` has the runs that
        have answers left, `replay.misses` the calls that were not found; with `strict` leaving the block
        raises ReplayError if there are any.

        A run answers where its capture mode kept its outputs, and is compared where it kept its input, and
        neither is redacted. `match="order"` compares no inputs, and takes redacted content as it is: each
        call gets the next run of its method and flow.

        Raises ReplayError unless the environment has RUNGLASS_REPLAY=1: code with a replay in it that comes
        into production stops there. Also for a session without such runs, and within another replay.
        """
        from runglass.client.core.replay import Replay
        from runglass.client.core.session_run import METHODS

        replay = Replay(session_id, match=match)
        async for run in self.runs(query=f"session:{replay.session_id}", limit=100):
            if run.trigger_type in METHODS:
                replay.add(b"".join([part async for part in self.run(run.id).export("jsonl")]))
        replay.require_runs()
        if self._transport.replay is not None:
            raise ReplayError("this client is in a replay already")
        self._transport.replay = replay
        try:
            yield replay
        finally:
            self._transport.replay = None
        if strict:
            replay.conclude()

    async def _executions(
        self, session_id: str | uuid.UUID, limit: int | None
    ) -> AsyncGenerator[SessionExecution, None]:
        call = requests.session(session_id, limit=limit)
        while True:
            page = await self._transport.call(call, timeout=None)
            for execution in page.executions:
                yield execution
            if page.next_cursor is None:
                return
            call = requests.following_page(call, page.next_cursor)

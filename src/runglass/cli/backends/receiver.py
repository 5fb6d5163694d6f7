"""What takes in a program's traces: a server that is named, that of a data folder, or one in this process."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from types import NoneType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends.local_server import open_portal, with_keys
from runglass.cli.backends.local_store import (
    DataFolder,
    create_key,
    in_store,
    local_key,
    named_project,
    speaks_to,
    terminal_user,
    viewing_key,
)
from runglass.cli.backends.server import Server, client_of
from runglass.cli.exit_codes import UsageError
from runglass.cli.terminal.output import warn
from runglass.client import Client
from runglass.client.core.connection import API_PATH
from runglass.client.core.requests import RequestSpec
from runglass.config.settings import Settings
from runglass.errors import APIConnectionError, PermissionDeniedError, RunglassError, WrongExpectedVersion
from runglass.store.base import Store
from runglass.store.data_folder import Announced, DataInUse, announce, running_server, watching
from runglass.store.keys import make_key
from runglass.store.records import ApiKey
from runglass.wire.admin_api import KeyRequest, NewKeyInfo

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

FIRST_PROJECT = ProjectName("local", "default")
"""The project of a data folder that has none."""
HOST = "127.0.0.1"
LOOK_S, AGAIN_S = 0.1, 1.0
"""How often it is looked whether the server of another `watch` is gone, and tried again to take its place."""
EVER, MOST_LEFT = "9999", 1000
"""Later than any run is due; so many of those of others are ended."""
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class Receiver(NamedTuple):
    """A server, a client that reads its runs, and a key with which a program sends.

    `address` is what SDKs take as their endpoint, `link` makes an address for a browser of a page, `end` ends
    recorded runs whose sender is gone, where nobody else does, and `options` are what further commands need
    to find the runs. One that `is_own` is gone with this process.
    """

    client: Client
    address: str
    record_key: str
    link: Callable[[str], str]
    end: Callable[[Collection[str]], None]
    options: str = ""
    is_own: bool = False


@contextmanager
def receiver(server: Server) -> Iterator[Receiver]:
    """The server that is named, else that of the data folder, else one of our own, until the block ends.

    Raises UsageError for a key that cannot both send and read, and as clients and stores do.
    """
    if server.base_url and server.folder == DataFolder():
        with server.connect() as client, _of_client(client) as found:
            yield found
        return
    settings, options = server.folder.settings(), server.options
    if server.folder == DataFolder() and settings.postgres is None:
        # Further commands take no folder by themselves.
        folder = DataFolder(settings.data) if settings.store is None else DataFolder(store=settings.store)
        options = server._replace(folder=folder).options
    if settings.postgres is not None:
        with _own_server(settings, server.project, is_alone=lambda: True) as own:
            yield own._replace(options=options)
        return
    with watching(settings.database) as is_alone, ExitStack() as stack:
        if (running := running_server(settings.database)) is None:
            own = stack.enter_context(_own_server(settings, server.project, is_alone))
            yield own._replace(options=options)
            return
        end = None
        if running.is_of_watch:
            succession = _successor(settings, server.project, is_alone, running.address)
            end = stack.enter_context(succession)
        if is_given := bool(server.api_key) and not server.is_folder:
            key = server.api_key
        else:
            key = stack.enter_context(_admin_key(settings, server.project))
        client = stack.enter_context(Server(running.address, key, DataFolder()).connect())
        found = stack.enter_context(_of_client(client))
        yield found._replace(options="" if is_given else options, end=end or found.end)


def role_of(client: Client) -> str:
    """The role of the client's key. Raises as clients do."""
    asked = RequestSpec(method="GET", path="/viewer/me", answer=dict)
    try:
        return str(client._transport.call(asked, timeout=None)["role"])
    except PermissionDeniedError:
        # It may ask nothing.
        return "record"


@contextmanager
def _of_client(client: Client) -> Iterator[Receiver]:
    """The server of a client, and a key that can only send where the client's may make one, else that one."""
    transport, role = client._transport, role_of(client)
    if role in ("read", "record"):
        only = "read" if role == "read" else "send"
        raise UsageError(
            f"the API key can only {only}, and what is sent is read, too: give one with the role run or admin"
        )
    base_url = transport.endpoint.base_url
    address = base_url.removesuffix(API_PATH)
    origin = "://".join(urlsplit(base_url)[:2])
    found = Receiver(
        client, address, transport.endpoint.api_key, lambda page: f"{origin}{page}", lambda run_ids: None
    )
    if role != "admin":
        yield found
        return
    body = msgspec.json.encode(KeyRequest(role="record"))
    headers = {"Content-Type": "application/json"}
    request = RequestSpec(method="POST", path="/keys", answer=NewKeyInfo, headers=headers, body=body)
    made = transport.call(request, timeout=None)
    try:
        yield found._replace(record_key=made.key)
    finally:
        revoke = RequestSpec(method="DELETE", path=f"/keys/{made.id}", answer=NoneType)
        # Of a server that is gone, what was asked before this has told.
        with suppress(APIConnectionError):
            transport.call(revoke, timeout=None)


@contextmanager
def _admin_key(settings: Settings, name: ProjectName | None) -> Iterator[str]:
    """A key of the data folder's project until the block ends, for its server."""

    async def add(store: Store) -> tuple[str, ApiKey]:
        project = await named_project(store, name)
        return await create_key(store, project, "admin", most=settings.max_keys_per_project)

    secret, key = in_store(settings, add)
    try:
        yield secret
    finally:
        in_store(settings, lambda store: store.revoke_key(key.project_id, key.id, by=terminal_user()))


@contextmanager
def _own_server(
    settings: Settings, name: ProjectName | None, is_alone: Callable[[], bool]
) -> Iterator[Receiver]:
    """A server on the data folder, which is made where it is missing, on this machine's loopback alone."""
    speaks_to(settings.store_name)
    if any(map(os.environ.get, PROXIES)):
        # No proxy leads back to this machine. What is started from here takes the variables over.
        for variable in ("NO_PROXY", "no_proxy"):
            os.environ[variable] = ",".join(filter(None, (os.environ.get(variable), HOST)))
    if settings.postgres is not None:
        # Its runs are those of its servers and workers.
        settings = msgspec.structs.replace(settings, executes_runs=False)
    with (
        open_portal() as portal,
        portal.wrap_async_context_manager(_serving(settings, name, portal, is_alone)) as served,
        served.client,
    ):
        yield served


@contextmanager
def _successor(
    settings: Settings, name: ProjectName | None, is_alone: Callable[[], bool], address: str
) -> Iterator[Callable[[Collection[str]], None]]:
    """Serves at the address, until the block ends, once the server of another `watch` is gone from there.

    Gives what ends runs, where that is so.
    """
    served, told = list[Receiver](), set[str]()
    with open_portal() as portal:

        async def succeed() -> None:
            # What a server needs is loaded before it has to be there.
            import runglass.runtime.composition
            import runglass.server  # noqa: F401

            port = urlsplit(address).port or 0
            while True:
                try:
                    # A third one may be quicker, or look at the same moment.
                    with suppress(DataInUse):
                        if running_server(settings.database) is None:
                            async with _serving(settings, name, portal, is_alone, port=port) as successor:
                                with successor.client:
                                    served.append(successor)
                                    await asyncio.Event().wait()
                except RunglassError as error:
                    # What has the port may let it go.
                    if str(error) not in told:
                        told.add(str(error))
                        warn(f"no server takes the place of the one that has ended: {error}")
                    await asyncio.sleep(AGAIN_S)
                await asyncio.sleep(LOOK_S)

        succeeding = portal.start_task_soon(succeed)
        try:
            yield lambda run_ids: served[0].end(run_ids) if served else None
        finally:
            if not succeeding.cancel():
                # It has ended by itself.
                succeeding.result()


@asynccontextmanager
async def _serving(
    settings: Settings,
    name: ProjectName | None,
    portal: "BlockingPortal",
    is_alone: Callable[[], bool],
    *,
    port: int = 0,
) -> AsyncIterator[Receiver]:
    from runglass.recording.settling import Settling
    from runglass.runtime.composition import open_runtime
    from runglass.server import LoginTickets, serving

    async with open_runtime(settings) as runtime:
        store = runtime.store
        name = name or (None if await store.projects() else FIRST_PROJECT)
        project = await named_project(store, name, create=True)
        if (viewing := await viewing_key(store, project)) is None:
            # A browser's session is that of a key in the store. Nobody knows this one.
            _, viewing = await create_key(store, project, "admin", most=settings.max_keys_per_project)
        reads = local_key(store, project)
        sends = msgspec.structs.replace(reads, role="record")
        read_key, record_key = make_key(), make_key()
        runtime.store = with_keys(store, {read_key.digest: reads, record_key.digest: sends})
        at_once, idle = timedelta(0), timedelta(seconds=settings.recording_idle_s)
        of_ours, of_others = (
            Settling(store=store, recordings=runtime.recordings, clock=store.clock, settle=at_once, idle=each)
            for each in (at_once, idle)
        )

        async def end(run_ids: Collection[str]) -> None:
            # Another `watch` takes the place of this server, and its program may go on with some of them.
            if not is_alone():
                return
            ours = [await store.run(run_id) for run_id in run_ids]
            # Those of a `watch` that this server has outlived, too: nobody looks at them once it is gone.
            left = [] if settings.postgres else await store.due_recordings(now=EVER, limit=MOST_LEFT)
            for settling, run in (*((of_ours, run) for run in ours), *((of_others, run) for run in left)):
                if run is None:
                    continue
                # Another process that has written to it ends it later.
                with suppress(WrongExpectedVersion):
                    await settling.end_if_due(run)

        # Its links are in the terminal of whoever watches, and work until they are used.
        tickets = LoginTickets(clock=lambda: 0.0)
        # The usual port may be the one that the program takes.
        async with serving(runtime, host=HOST, port=port, tickets=tickets) as address:
            if settings.postgres is None:
                announce(settings.database, Announced(address, is_of_watch=True))
            yield Receiver(
                client=client_of(read_key.key, address),
                address=address,
                record_key=record_key.key,
                link=lambda page: f"{address}{tickets.issue(viewing, page)}",
                end=lambda run_ids: portal.call(end, run_ids),
                is_own=True,
            )

"""`runglass serve` and `runglass worker`, which live long, and `runglass open`, which shows runs.

The server keeps a folder of flow files published. A worker executes runs beside the servers of a PostgreSQL.
"""

import asyncio
import ctypes
import gc
import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import click
import msgspec

from runglass.cli import argument_parsers, options
from runglass.cli.backends.flow_backend import FlowFolder
from runglass.cli.backends.local_store import viewing_key
from runglass.cli.backends.server import Server, named_run
from runglass.cli.terminal.output import announcer, log_to_stderr, note, stdout, warn, write_line
from runglass.client.api.admin import Management
from runglass.config.reader import read_settings
from runglass.config.settings import Settings, SettingsError
from runglass.store.data_folder import Announced, announce
from runglass.support.import_without_gc import loading

if TYPE_CHECKING:
    from runglass.runtime.runtime import Runtime
    from runglass.server import LoginTickets

MOST_PROJECTS = 10
"""Links that a starting server prints; a server of more projects has people who open one each."""
LARGE_BLOCK_BYTES = 1 << 20
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""The names of these options in malloc.h."""
GC_OBJECTS = 20_000
"""New objects before the garbage collector looks at them."""


@click.command()
@options.setting("host", metavar="ADDRESS")
@options.setting("port", metavar="PORT")
@options.setting("data", metavar="FOLDER")
@options.setting("flows", metavar="FOLDER")
@options.setting("store", metavar="URL", kind=argument_parsers.store_address)
@click.option(
    "--worker/--no-worker",
    "executes_runs",
    default=None,
    help="Whether this server executes runs or leaves them to workers. By default it does.",
)
@options.setting("synchronous")
@options.setting("capture")
@options.setting("log_level")
@options.setting("log_format")
@options.setting("otlp_grpc", metavar="HOST:PORT")
@options.setting("metrics_port", metavar="PORT")
@click.option("--open", "opens", is_flag=True, help="Print a link to the viewer and open it in a browser.")
def serve(opens: bool, **flags: str | int | bool | Path | None) -> None:
    """Serve flows and runs until Ctrl-C; prints `ready URL` when it accepts connections.

    Other commands take the URL as RUNGLASS_BASE_URL or --base-url.

    Other settings come from RUNGLASS_… variables or runglass.toml.
    """
    # Each flag is the setting of that name.
    _run_server(read_settings(flags, warn=warn), opens="/" if opens else None)


def _run_server(settings: Settings, *, opens: str | None, in_browser: bool = True) -> None:
    """Serves until Ctrl-C, and opens a page of the viewer, or only prints the link to it."""
    log_to_stderr(settings.log_level, settings.log_format)
    # Imported here, so that no other command waits for the web framework.
    with loading():
        from runglass.server import new_event_loop
    tune_memory()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(settings, opens=opens, in_browser=in_browser))


async def _serve(settings: Settings, *, opens: str | None, in_browser: bool) -> None:
    from runglass.server import LoginTickets
    from runglass.server import serve as serve_http

    folder = settings.flows
    if folder is not None and not folder.is_dir():
        raise SettingsError(f"the folder of flows {str(folder)!r} does not exist")
    tell = announcer(settings.log_format)
    address: list[str] = []
    tickets = LoginTickets()

    async def announce_and_watch(runtime: "Runtime") -> None:
        flow_folder = None
        if folder is not None:
            flow_folder = FlowFolder(folder, runtime, report=tell)
            await flow_folder.scan()
        # `ready` comes after the scan: a caller that waits for it may run the folder's flows.
        url, console = address[0], stdout()
        if settings.postgres is None:
            announce(settings.database, Announced(url))
        write_line(console, f"ready {url}")
        console.file.flush()
        tell(
            f"look at its runs in a browser at {url}/, or with: RUNGLASS_BASE_URL={url} runglass runs list"
            " (and RUNGLASS_API_KEY from runglass keys create)"
        )
        if opens is not None:
            await _print_links(runtime, tickets, url, opens, in_browser=in_browser)
        if flow_folder is not None:
            await flow_folder.watch()

    await serve_http(settings, ready=address.append, beside=announce_and_watch, tickets=tickets)


async def _print_links(
    runtime: "Runtime", tickets: "LoginTickets", url: str, page: str, *, in_browser: bool
) -> None:
    """Prints a link that signs a browser in, for each project that has a key: that with the highest role."""
    links = []
    for project in (await runtime.store.projects())[:MOST_PROJECTS]:
        if (key := await viewing_key(runtime.store, project)) is not None:
            links.append(f"{url}{tickets.issue(key, page)}")
            name = f"{project.org}/{project.name}"
            note(f"look at {name} in a browser, within a minute: {links[-1]}")
    if not links:
        note("there is no key yet: runglass keys create ORG/PROJECT, then runglass open")
    elif len(links) == 1 and in_browser and stdout().is_terminal:
        # A browser, unlike the sandbox, gets our stderr.
        os.set_inheritable(2, True)
        # In a thread: a browser of the terminal keeps its caller waiting.
        await asyncio.to_thread(webbrowser.open, links[0])
        os.set_inheritable(2, False)


@click.command()
@click.option(
    "--store",
    type=argument_parsers.store_address,
    metavar="URL",
    help="postgresql://user@host/database, shared with the servers.",
)
@options.setting("max_concurrent_runs", "--concurrency", metavar="N")
@options.setting("capture")
@options.setting("log_level")
@options.setting("log_format")
@options.setting("metrics_host", "--host", metavar="ADDRESS")
@options.setting("metrics_port", "--port", metavar="PORT")
def worker(**flags: str | int | None) -> None:
    """Execute runs that servers on the same PostgreSQL accept.

    On SIGTERM it claims no more, gives steps `stop_grace_s`, and leaves its runs to others. Other settings
    come from RUNGLASS_… variables or runglass.toml, as for `runglass serve`.
    """
    # Each flag is the setting of that name.
    settings = read_settings(flags, warn=warn)
    log_to_stderr(settings.log_level, settings.log_format)
    with loading():
        from runglass.runtime.worker import new_event_loop, work
    tune_memory()

    def announce(watched_at: str | None) -> None:
        console = stdout()
        runs = f"{settings.max_concurrent_runs:,} runs at once"
        write_line(console, f"ready worker on {settings.store_name}, {runs}")
        console.file.flush()
        if watched_at is not None:
            announcer(settings.log_format)(f"{watched_at} has /metrics, /health and /ready")

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work(settings, ready=announce))


def tune_memory() -> None:
    """For the rest of the process: the collector looks seldom, and large blocks go back once freed."""
    # Runs make next to no garbage. By default the collector walks through their objects after every 700 new
    # ones; with 200 runs that was a tenth of all work.
    gc.set_threshold(GC_OBJECTS, 10, 10)
    # By itself the C library of GNU takes the first large block that is freed for a sign of more, and from
    # then on keeps such blocks in a heap with holes: the memory of results of megabytes would never be given
    # back.
    if (set_option := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        set_option(_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        # The option above keeps this threshold from growing by itself; as small as it begins, the library
        # would ask the system anew for each part of a long answer.
        set_option(_TRIM_THRESHOLD, 2 * LARGE_BLOCK_BYTES)


@click.command("open")
@click.argument("run_id", required=False, metavar="[RUN]", help="A run, as `runs show` takes it.")
@click.option("--print", "only_print", is_flag=True, help="Print the link without opening a browser.")
@options.server
def open_viewer(run_id: str | None, only_print: bool, server: Server) -> None:
    """Open the list of runs, or one run, in the browser; without a terminal, print the link.

    The link signs the browser in once, within a minute, on the server's own machine. The page of another
    server asks for the key. With --data it starts a server of the folder on a free port, until Ctrl-C; if
    a server has the folder, name that by --base-url instead.
    """
    with server.connect() as client:
        page = "/" if run_id is None else f"/runs/{quote(named_run(client, run_id).execution_id)}"
        parts = urlsplit(client._transport.endpoint.base_url)
        link = f"{parts.scheme}://{parts.netloc}{page}"
        if is_this_machine(parts.hostname or "") and not server.is_folder:
            link = f"{parts.scheme}://{parts.netloc}{Management(client).ticket(page).path}"
    if server.is_folder:
        settings = msgspec.structs.replace(server.folder.settings(), host="127.0.0.1", port=0)
        _run_server(settings, opens=page, in_browser=not only_print)
        return
    console = stdout()
    write_line(console, link)
    if console.is_terminal and not only_print and not webbrowser.open(link):
        note("no browser could be opened; open the link within a minute")


def is_this_machine(host: str) -> bool:
    """Whether a name or an address is plainly of the machine that the command runs on."""
    return host in ("localhost", "::1") or host.endswith(".localhost") or host.startswith("127.")

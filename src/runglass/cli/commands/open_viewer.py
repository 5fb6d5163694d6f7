"""`runglass open`: the viewer in a browser, signed in where the server is on this machine."""

import ipaddress
import webbrowser
from urllib.parse import quote, urlsplit

import click

from runglass.cli import options
from runglass.cli.backends.server import Server, named_run
from runglass.cli.terminal.output import note, stdout, write_line
from runglass.client.core.connection import endpoint


@click.command("open")
@click.argument("run_id", required=False, metavar="[RUN]", help="A run, as `runs show` takes it.")
@click.option("--print", "only_print", is_flag=True, help="Print the link, and open no browser.")
@options.server
def open_viewer(run_id: str | None, only_print: bool, server: Server) -> None:
    """Open the list of runs, or one run, in the browser; where there is no terminal, print the link.

    The link signs the browser in with the key: once, within a minute, on the server's own machine alone. Of a
    server elsewhere the page is opened, and asks for the key.
    """
    with server.connect() as client:
        page = "/" if run_id is None else f"/runs/{quote(named_run(client, run_id).execution_id)}"
        found = endpoint(api_key=server.api_key, base_url=server.base_url, timeout=None, max_retries=0)
        parts = urlsplit(found.base_url)
        link = f"{parts.scheme}://{parts.netloc}{page}"
        if is_this_machine(parts.hostname or ""):
            # Imported here: the other commands have no use for it.
            from runglass.client.api.admin import Management

            link = f"{parts.scheme}://{parts.netloc}{Management(client).ticket(page).path}"
    console = stdout()
    write_line(console, link)
    if console.is_terminal and not only_print and not webbrowser.open(link):
        note("no browser could be opened; open the link within a minute")


def is_this_machine(host: str) -> bool:
    """Whether a name or an address is plainly of the machine that the command runs on."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""`runglass open`: the viewer in a browser, signed in where the server is on this machine."""

import webbrowser
from urllib.parse import quote

import click

from runglass.cli import options
from runglass.cli.backends.connection import connect
from runglass.cli.backends.run_lookup import named_run
from runglass.cli.backends.viewer_links import viewer_link
from runglass.cli.terminal.output import note, stdout, write_line


@click.command("open")
@click.argument("run_id", required=False, metavar="[RUN]", help="A run, as `runs show` takes it.")
@click.option("--print", "only_print", is_flag=True, help="Print the link, and open no browser.")
@options.server
def open_viewer(run_id: str | None, only_print: bool, base_url: str | None, api_key: str | None) -> None:
    """Open the list of runs, or one run, in the browser; where there is no terminal, print the link.

    The link signs the browser in with the key: once, within a minute, on the server's own machine alone. Of a
    server elsewhere the page is opened, and asks for the key.
    """
    with connect(base_url, api_key) as client:
        page = "/" if run_id is None else f"/runs/{quote(named_run(client, run_id).execution_id)}"
        link = viewer_link(client, page, base_url=base_url, api_key=api_key)
    console = stdout()
    write_line(console, link)
    if console.is_terminal and not only_print and not webbrowser.open(link):
        note("no browser could be opened; open the link within a minute")

"""`runglass runs diff`: what differs between two runs, for people, machines and scripts."""

import click

from runglass.cli import options
from runglass.cli.backends.connection import connect
from runglass.cli.backends.run_lookup import named_run
from runglass.cli.exit_codes import Exit
from runglass.cli.terminal.diff_view import conclusion, diff_lines, head_lines
from runglass.cli.terminal.output import note, stdout, width_of, write_json, write_line


@click.command()
@click.argument("run_a", metavar="A", help="A run, as `runs show` takes it.")
@click.argument("run_b", metavar="B", help="The run that it is compared with.")
@click.option("--all", "with_same", is_flag=True, help="List the attempts that are the same, too.")
@options.as_json
@options.server
def diff(
    run_a: str, run_b: str, with_same: bool, as_json: bool, base_url: str | None, api_key: str | None
) -> None:
    """What differs between two runs, attempt by attempt. Exit code 0 if they are the same, 1 if they differ.

    The runs may be of other versions and flows: attempts are paired by step, iteration and number. The first
    divergence is the first in the order of the flow. Nothing differs by its duration alone.
    """
    with connect(base_url, api_key) as client:
        found = named_run(client, run_a).diff(named_run(client, run_b), all=with_same)
    if as_json:
        write_json(found)
    else:
        console = stdout()
        for line in (*head_lines(found), *diff_lines(found, width=width_of(console))):
            write_line(console, line)
        for remark in conclusion(found):
            note(remark)
    if not found.same:
        raise click.exceptions.Exit(Exit.FAILED)

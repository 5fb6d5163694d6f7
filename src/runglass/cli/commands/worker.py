"""`runglass worker`: a process that executes runs beside the servers of a PostgreSQL."""

import asyncio

import click

from runglass.cli import options
from runglass.cli.process_memory import tune_memory
from runglass.cli.terminal.output import announcer, log_to_stderr, stdout, warn, write_line
from runglass.config.reader import read_settings
from runglass.config.settings import Settings
from runglass.support.import_without_gc import loading


@click.command()
@click.option(
    "--store",
    type=options.STORE,
    metavar="URL",
    help="postgresql://user@host/database, which the servers share.",
)
@click.option(
    "--concurrency",
    "max_concurrent_runs",
    type=options.WholeNumber(min=1),
    metavar="N",
    help="Runs that go on at once. By default 1000.",
)
@options.recording_and_log
@click.option(
    "--host",
    "metrics_host",
    metavar="ADDRESS",
    help="Address of /metrics, /health and /ready, which ask for no key. By default 127.0.0.1.",
)
@click.option(
    "--port",
    "metrics_port",
    type=options.WholeNumber(min=0, max=65535),
    metavar="PORT",
    help="Their port; 0 takes a free one. By default none.",
)
def worker(**flags: str | int | None) -> None:
    """Execute runs that servers on the same PostgreSQL take in.

    At SIGTERM it claims no more, lets steps end for `stop_grace_s`, and leaves its runs to others. Every
    other setting comes from RUNGLASS_… variables or runglass.toml, as for `runglass serve`.
    """
    # Each flag is the setting of that name.
    settings = read_settings(flags, warn=warn)
    log_to_stderr(settings.log_level, settings.log_format)
    with loading():
        from runglass.runtime.worker import new_event_loop, work
    tune_memory()

    def announce(watched_at: str | None) -> None:
        console = stdout()
        write_line(console, f"ready {_place(settings)}")
        console.file.flush()
        if watched_at is not None:
            announcer(settings.log_format)(f"{watched_at} has /metrics, /health and /ready")

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work(settings, ready=announce))


def _place(settings: Settings) -> str:
    return f"worker on {settings.store_name}, {settings.max_concurrent_runs:,} runs at once"

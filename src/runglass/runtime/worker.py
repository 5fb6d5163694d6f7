"""From a runtime to a process that claims runs and executes them, until a signal asks it to stop."""

from collections.abc import Callable

from uvicorn.loops.auto import auto_loop_factory

from runglass.config.settings import Settings, SettingsError
from runglass.runtime.composition import open_runtime
from runglass.runtime.metrics.listener import listening
from runglass.support.supervision import stop_signal

new_event_loop = auto_loop_factory()
"""Makes the fastest event loop there is: `asyncio.Runner(loop_factory=new_event_loop)`."""


async def work(settings: Settings, *, ready: Callable[[str | None], None]) -> None:
    """Executes runs until SIGINT or SIGTERM; calls `ready` once it claims them.

    What is handed to `ready` is the address of `/metrics`, `/health` and `/ready`, where there is one.

    Steps that go on then may end for `stop_grace_s`, and the runs are left to other processes. Raises
    RunglassError where the worker cannot start. Runs in the main thread, which gets the signals.
    """
    if settings.postgres is None:
        raise SettingsError(
            f"a worker shares the store with other processes, and {settings.store_name!r} is a file for one:"
            " `runglass serve` executes the runs of its file itself. For workers name a database in"
            " RUNGLASS_STORE=postgresql://user:password@host/database"
        )
    if not settings.executes_runs:
        raise SettingsError("executes_runs is false, and to execute runs is all that a worker does")
    async with open_runtime(settings) as runtime, listening(runtime) as watched_at:
        with stop_signal() as stop:
            ready(watched_at)
            await stop.wait()
        # While steps end, those who watch are told so.
        await runtime.engine.stop(grace_s=settings.stop_grace_s)

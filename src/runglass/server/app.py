"""The web application: which handlers answer at which path, and what stands around them."""

from weakref import WeakValueDictionary

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp

from runglass.runtime import Runtime
from runglass.server.answers import answer_fault
from runglass.server.audit import audit
from runglass.server.auth import run_by_id, run_of_flow, trace_by_id, trace_of_flow
from runglass.server.cancelling import cancel
from runglass.server.flows import FLOWS
from runglass.server.front import API, Front
from runglass.server.health import HealthCheck
from runglass.server.jobs import JOBS
from runglass.server.keys import KEYS
from runglass.server.ongoing import Ongoing
from runglass.server.open_calls import OpenCalls
from runglass.server.openapi import openapi_config
from runglass.server.query import settle_query
from runglass.server.rate import KeyRate, ProjectRate, Rates
from runglass.server.reading import runs, step_trace, stream, trace
from runglass.server.repeats import Repeats
from runglass.server.routes import execute, execute_version, flow_file_schema, health
from runglass.server.sessions import session
from runglass.server.stepping import step, step_version
from runglass.server.taking_in import TakingIn
from runglass.settings import Settings

OF_A_RUN = [trace, step_trace, stream, cancel]


class _Lean(Litestar):
    """The framework without its plugins for libraries that no handler uses."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        # The framework's own list imports pydantic, both versions of it, wherever that is installed.
        return [*plugins, MsgspecDIPlugin()]


def create_app(runtime: Runtime, *, ongoing: Ongoing | None = None) -> ASGIApp:
    """The ASGI application for a runtime. `ongoing` lets its owner end the answers that last."""
    ongoing = ongoing or Ongoing()
    api = Router(
        API,
        before_request=settle_query,
        route_handlers=[
            execute,
            execute_version,
            step,
            step_version,
            runs,
            flow_file_schema,
            FLOWS,
            KEYS,
            audit,
            *JOBS,
            session,
            Router(
                "/seq/{org:str}/{project:str}/{slug:str}/runs/{execution_id:str}",
                dependencies={"run": Provide(run_of_flow), "opened": Provide(trace_of_flow)},
                route_handlers=OF_A_RUN,
            ),
            Router(
                "/flow-runs/{execution_id:str}",
                dependencies={"run": Provide(run_by_id), "opened": Provide(trace_by_id)},
                route_handlers=OF_A_RUN,
            ),
        ],
    )
    app = _Lean(
        [api, health],
        debug=False,
        exception_handlers={Exception: answer_fault},
        logging_config=None,
        openapi_config=openapi_config(),
        request_max_body_size=runtime.settings.body_limit_bytes,
        state=State(
            {
                "runtime": runtime,
                "ongoing": ongoing,
                "turns": WeakValueDictionary(),
                "repeats": Repeats(),
                "health": HealthCheck(runtime),
                "taking_in": TakingIn(runtime.settings.memory_limit_bytes),
            },
            deep_copy=False,
        ),
    )
    open_calls = OpenCalls(runtime.settings.max_streams_per_project)
    return Front(app, runtime.store, open_calls=open_calls, ongoing=ongoing, rates=_rates(runtime.settings))


def _rates(settings: Settings) -> Rates:
    of_key, of_project = settings.rate_limit_per_minute, settings.project_rate_limit_per_minute
    return Rates(
        of_key=None if of_key is None else KeyRate(of_key),
        of_project=None if of_project is None else ProjectRate(of_project),
    )

"""The web application: the endpoints, what they share, and what stands around them."""

from weakref import WeakValueDictionary

from starlette.types import ASGIApp

from runglass.runtime import Runtime
from runglass.server.endpoint import Answer, Endpoint
from runglass.server.endpoints import ENDPOINTS
from runglass.server.front import Front
from runglass.server.health import HealthCheck
from runglass.server.ongoing import Ongoing
from runglass.server.open_calls import OpenCalls
from runglass.server.openapi import OPENAPI, Documentation
from runglass.server.rate import KeyRate, ProjectRate, Rates
from runglass.server.repeats import Repeats
from runglass.server.routing import create_router
from runglass.server.services import Services
from runglass.server.taking_in import TakingIn
from runglass.settings import Settings

HTML = "text/html"


def create_app(runtime: Runtime, *, ongoing: Ongoing | None = None) -> ASGIApp:
    """The ASGI application for a runtime. `ongoing` lets its owner end the answers that last."""
    services = Services(
        runtime=runtime,
        ongoing=ongoing or Ongoing(),
        open_calls=OpenCalls(runtime.settings.max_streams_per_project),
        taking_in=TakingIn(runtime.settings.memory_limit_bytes),
        repeats=Repeats(),
        health=HealthCheck(runtime),
        idempotency_locks=WeakValueDictionary(),
    )
    router = create_router([*ENDPOINTS, *_documentation()], services)
    return Front(router, runtime.store, ongoing=services.ongoing, rates=_rates(runtime.settings))


def _documentation() -> list[Endpoint]:
    """The endpoints that describe the others, and are in no description themselves."""
    about = Documentation(ENDPOINTS)
    return [
        Endpoint(
            "GET", "/docs", about.page, "open", "", "", Answer((str,), "A page.", media_type="text/html")
        ),
        Endpoint(
            "GET",
            "/docs/openapi.json",
            about.document,
            "open",
            "",
            "",
            Answer((dict,), "The document.", media_type=OPENAPI),
        ),
    ]


def _rates(settings: Settings) -> Rates:
    of_key, of_project = settings.rate_limit_per_minute, settings.project_rate_limit_per_minute
    return Rates(
        of_key=None if of_key is None else KeyRate(of_key),
        of_project=None if of_project is None else ProjectRate(of_project),
    )

"""The application made from the table of endpoints: it checks roles and parameters and calls handlers.

The framework looks for the path and parses nothing. Every exception of a handler becomes a response here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.convertors import IntegerConvertor, StringConvertor, register_url_convertor
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from runglass.errors import APIError, RateLimitError, api_error
from runglass.server.api_request import ApiRequest, Services
from runglass.server.endpoint import ROLES, Endpoint
from runglass.server.http.error_responses import answer_fault
from runglass.server.http.request_connection import CallerLeft, connection_of
from runglass.server.requests.did_you_mean import camel, refuse_slips
from runglass.store.records import RunRecord
from runglass.support.safe_text import printable


class _Number(IntegerConvertor):
    """A whole number in a path."""

    regex = "-?[0-9]{1,1000}"


class _Organisation(StringConvertor):
    """The name of an organisation in a path; not `sessions`, which begins another path."""

    regex = "(?!sessions/)[^/]+"


register_url_convertor("number", _Number())
register_url_convertor("organisation", _Organisation())


def create_router(endpoints: Sequence[Endpoint], services: Services) -> Router:
    """The application that answers at the paths of the endpoints, and NOT_FOUND anywhere else."""
    of_path: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in endpoints:
        of_path[endpoint.path][endpoint.method] = endpoint
    routes = [Route(path, _Path(methods, services)) for path, methods in of_path.items()]
    return Router(routes, redirect_slashes=False, default=_nowhere(services))


class _Path:
    """The endpoints of one path, by their methods."""

    def __init__(self, endpoints: Mapping[str, Endpoint], services: Services) -> None:
        self._endpoints = endpoints
        self._services = services
        self._defaults = {
            method: {each.key: each.default for each in (*endpoint.query, *endpoint.headers)}
            for method, endpoint in endpoints.items()
        }
        self._allow = ", ".join([*endpoints, "OPTIONS"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = ApiRequest(scope, receive, self._services)
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None or not endpoint.is_lasting:
            await self._respond(endpoint, request, send)
            return
        try:
            # A call whose caller has left costs what a job does, and jobs are not counted.
            with (
                self._services.open_calls.opened(request.auth.project_id) as end_call,
                connection_of(scope).on_loss(end_call),
            ):
                await self._respond(endpoint, request, send)
        except RateLimitError as error:
            await answer_fault(request, error)(scope, receive, send)

    async def _respond(self, endpoint: Endpoint | None, request: ApiRequest, send: Send) -> None:
        response: ASGIApp
        try:
            response = (
                self._for_other_method(request) if endpoint is None else await self._answer(endpoint, request)
            )
        except CallerLeft:
            return
        except Exception as fault:  # noqa: BLE001  # whatever it is, it is answered, and logged where it is ours
            response = answer_fault(request, fault)
        await response(request.scope, request.receive, send)

    async def _answer(self, endpoint: Endpoint, request: ApiRequest) -> ASGIApp:
        given = read_query(request.scope, endpoint) if request.scope["query_string"] else {}
        path = dict(request.path_params)
        values = self._defaults[endpoint.method].copy()
        found: Any = None
        if (finds := endpoint.finds) is not None:
            found = await finds.find(request, **{name: path.pop(name) for name in finds.path})
            values[finds.argument] = found
        for parameter in endpoint.query:
            if parameter.name in given:
                values[parameter.key] = parameter.convert(given[parameter.name])
        for header in endpoint.headers:
            if (text := request.headers.get(header.name)) is not None:
                values[header.key] = header.convert(text)
        if endpoint.access != "open" and request.auth.role not in ROLES[endpoint.access]:
            if (hides := endpoint.hides) is not None:
                await hides.find(request, **{name: path[name] for name in hides.path})
            raise _forbidden(endpoint, request.auth.role, found)
        response: ASGIApp = await endpoint.handler(request, **path, **values)
        return response

    def _for_other_method(self, request: ApiRequest) -> ASGIApp:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allow})
        path = printable(request.scope["path"])
        error = api_error(
            "METHOD_NOT_ALLOWED", f"{request.method} {path} is not possible; see the `Allow` header"
        )
        response = answer_fault(request, error)
        response.headers["Allow"] = self._allow
        return response


def read_query(scope: Scope, endpoint: Endpoint) -> dict[str, str]:
    """The parameters that the endpoint knows, in its spelling; `loopIndex` counts as `loop_index`.

    The query string of the scope is reduced to them. Other parameters are ignored, as clients and proxies
    append their own, unless the endpoint refuses them. Raises INVALID_REQUEST for a known parameter that
    comes twice and for a misspelt one: ignoring it would change the meaning of the request.
    """
    known = [parameter.name for parameter in endpoint.query]
    spelled = {camel(name): name for name in known} | {name: name for name in known}
    given = parse_qsl(scope["query_string"].decode(errors="replace"), keep_blank_values=True)
    unknown = [name for name, _ in given if name not in spelled]
    refuse_slips(unknown, known, kind="parameter")
    if unknown and endpoint.refuses_unknown:
        message = f"`{unknown[0]:.100}`: unknown parameter; known are {', '.join(known)}"
        raise api_error("INVALID_REQUEST", message)
    settled: dict[str, str] = {}
    for name, value in given:
        if name not in spelled:
            continue
        if spelled[name] in settled:
            raise api_error("INVALID_REQUEST", f"`{spelled[name]}` is given more than once")
        settled[spelled[name]] = value
    scope["query_string"] = urlencode(settled).encode()
    return settled


def _forbidden(endpoint: Endpoint, role: str, found: Any) -> APIError:
    needed = " or ".join(repr(each) for each in ROLES[endpoint.access])
    return api_error(
        "FORBIDDEN",
        f"a key with the role {role!r} may not {endpoint.doing}; that takes the role {needed}",
        execution_id=found.id if isinstance(found, RunRecord) else None,
    )


def _nowhere(services: Services) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        error = api_error("NOT_FOUND", f"there is no path {scope['path']!r}")
        await answer_fault(ApiRequest(scope, receive, services), error)(scope, receive, send)

    return answer

"""The application made from the table of endpoints: it checks roles and parameters and calls handlers.

Of the framework are the patterns of paths alone. Every exception of a handler becomes a response here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.convertors import IntegerConvertor, StringConvertor, register_url_convertor
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from runglass.errors import APIError, RateLimitError, api_error
from runglass.server.api_request import ApiRequest, Services
from runglass.server.endpoint import ROLES, Endpoint
from runglass.server.http.error_responses import as_api_error, error_response
from runglass.server.http.exchange import ENDPOINT, CallerLeft, exchange_of
from runglass.server.requests.did_you_mean import camel, refuse_slips
from runglass.support.safe_text import printable


class _Number(IntegerConvertor):
    """A whole number in a path."""

    regex = "-?[0-9]{1,1000}"


class _Organisation(StringConvertor):
    """The name of an organisation in a path; not `sessions`, which begins another path."""

    regex = "(?!sessions/)[^/]+"


register_url_convertor("number", _Number())
register_url_convertor("organisation", _Organisation())


class Router:
    """The application that answers at the paths of the endpoints, and NOT_FOUND anywhere else."""

    def __init__(self, endpoints: Sequence[Endpoint], services: Services) -> None:
        self._services = services
        of_path: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
        for endpoint in endpoints:
            of_path[endpoint.path][endpoint.method] = endpoint
        self._paths = [(compile_path(path), methods) for path, methods in of_path.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = ApiRequest(scope, receive, self._services)
        endpoints, path, parts = self._find(scope["path"])
        endpoint = endpoints.get(scope["method"])
        if endpoint is None:
            await _without_endpoint(request, endpoints)(scope, receive, send)
            return
        scope["state"][ENDPOINT] = f"{endpoint.method} {path}"
        if not endpoint.is_lasting:
            await self._respond(endpoint, request, parts, send)
            return
        try:
            # A call whose caller has left costs what a job does, and jobs are not counted.
            with (
                self._services.limits.open_call(request.auth.project_id) as end_call,
                exchange_of(scope).on_loss(end_call),
            ):
                await self._respond(endpoint, request, parts, send)
        except RateLimitError as error:
            await error_response(error)(scope, receive, send)

    def _find(self, path: str) -> tuple[Mapping[str, Endpoint], str, dict[str, Any]]:
        """The endpoints of the path by their methods, none where there is no such path; pattern and parts."""
        for (pattern, written, convertors), endpoints in self._paths:
            if (match := pattern.match(path)) is not None:
                parts = match.groupdict()
                for name, convertor in convertors.items():
                    parts[name] = convertor.convert(parts[name])
                return endpoints, written, parts
        return {}, "", {}

    async def _respond(
        self, endpoint: Endpoint, request: ApiRequest, parts: dict[str, Any], send: Send
    ) -> None:
        try:
            response = await self._answer(endpoint, request, parts)
        except CallerLeft:
            return
        except Exception as fault:  # noqa: BLE001  # whatever it is, it is answered, and logged where it is ours
            response = error_response(as_api_error(request, fault))
        await response(request.scope, request.receive, send)

    async def _answer(self, endpoint: Endpoint, request: ApiRequest, parts: dict[str, Any]) -> ASGIApp:
        given = read_query(request.scope, endpoint) if request.scope["query_string"] else {}
        values: dict[str, Any] = {}
        run_id = parts.get("execution_id")
        if (finds := endpoint.finds) is not None:
            found = await finds.find(request, **{name: parts.pop(name) for name in finds.path})
            values[finds.argument] = found
        for parameter in endpoint.query:
            text = given.get(parameter.name)
            values[parameter.key] = parameter.default if text is None else parameter.convert(text)
        for header in endpoint.headers:
            text = request.headers.get(header.name)
            values[header.key] = header.default if text is None else header.convert(text)
        if endpoint.access != "open" and request.auth.role not in ROLES[endpoint.access]:
            if (hides := endpoint.hides) is not None:
                await hides.find(request, **{name: parts[name] for name in hides.path})
            raise _forbidden(endpoint, request.auth.role, run_id)
        response: ASGIApp = await endpoint.handler(request, **parts, **values)
        return response


def _without_endpoint(request: ApiRequest, others: Mapping[str, Endpoint]) -> Response:
    """The response where the path has no endpoint for the method, or only others."""
    path = request.scope["path"]
    if not others:
        return error_response(api_error("NOT_FOUND", f"there is no path {path!r}"))
    allow = ", ".join([*others, *(["HEAD"] if "GET" in others else []), "OPTIONS"])
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": allow})
    message = f"{request.method} {printable(path)} is not possible; see the `Allow` header"
    response = error_response(api_error("METHOD_NOT_ALLOWED", message))
    response.headers["Allow"] = allow
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


def _forbidden(endpoint: Endpoint, role: str, run_id: str | None) -> APIError:
    needed = " or ".join(repr(each) for each in ROLES[endpoint.access])
    return api_error(
        "FORBIDDEN",
        f"a key with the role {role!r} may not {endpoint.doing}; that takes the role {needed}",
        execution_id=run_id,
    )

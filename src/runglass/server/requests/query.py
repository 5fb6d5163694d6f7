"""The query of a request: one spelling, each name once, no misspelt names."""

from urllib.parse import parse_qsl, urlencode

from starlette.types import Scope

from runglass.errors import api_error
from runglass.server.endpoint import Endpoint
from runglass.server.requests.did_you_mean import camel, refuse_slips


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

"""The query of a request, settled before the framework reads it: one spelling, each name once, no slips."""

from urllib.parse import parse_qsl, urlencode

from litestar.params import QueryParameter

from runglass.errors import api_error
from runglass.server.auth import Asked
from runglass.server.spelling import camel, refuse_slips

STRICT = "strict_query"
"""The `opt` of a route that refuses what it does not know: a filter that is ignored looks as if it worked."""


async def settle_query(request: Asked) -> None:
    """Leaves what the route knows, as the route spells it; `loopIndex` is as good as `loop_index`.

    Other parameters are ignored, as clients and proxies append their own, unless the route is STRICT. Raises
    INVALID_REQUEST for a known one that comes twice and for one that was meant for a known one: ignored, it
    would change what is asked.
    """
    if not (query := request.scope["query_string"]):
        return
    parameters = request.route_handler.parsed_fn_signature.parameters
    about = {name: field.kwarg_definition for name, field in parameters.items()}
    known = [each.name or name for name, each in about.items() if isinstance(each, QueryParameter)]
    spelled = {camel(name): name for name in known} | {name: name for name in known}
    given = parse_qsl(query.decode(errors="replace"), keep_blank_values=True)
    unknown = [name for name, _ in given if name not in spelled]
    refuse_slips(unknown, known, kind="parameter")
    if unknown and request.route_handler.opt.get(STRICT):
        message = f"`{unknown[0]:.100}`: unknown parameter; known are {', '.join(known)}"
        raise api_error("INVALID_REQUEST", message)
    settled: dict[str, str] = {}
    for name, value in given:
        if name not in spelled:
            continue
        if spelled[name] in settled:
            raise api_error("INVALID_REQUEST", f"`{spelled[name]}` is given more than once")
        settled[spelled[name]] = value
    request.scope["query_string"] = urlencode(settled).encode()

"""The query of a request, settled before the framework reads it: one spelling, each name once, no slips."""

from urllib.parse import parse_qsl, urlencode

from litestar.params import QueryParameter

from runglass.errors import api_error
from runglass.server.auth import Asked
from runglass.server.spelling import camel, refuse_slips


async def settle_query(request: Asked) -> None:
    """Leaves what the route knows, as the route spells it; `loopIndex` is as good as `loop_index`.

    Other parameters are ignored, as clients and proxies append their own. Raises INVALID_REQUEST for a known
    one that comes twice and for one that was meant for a known one: ignored, it would change what is asked.
    """
    if not (query := request.scope["query_string"]):
        return
    parameters = request.route_handler.parsed_fn_signature.parameters
    known = [name for name, field in parameters.items() if isinstance(field.kwarg_definition, QueryParameter)]
    spelled = {camel(name): name for name in known} | {name: name for name in known}
    given = parse_qsl(query.decode(errors="replace"), keep_blank_values=True)
    refuse_slips([name for name, _ in given if name not in spelled], known, kind="parameter")
    settled: dict[str, str] = {}
    for name, value in given:
        if name not in spelled:
            continue
        if spelled[name] in settled:
            raise api_error("INVALID_REQUEST", f"`{spelled[name]}` is given more than once")
        settled[spelled[name]] = value
    request.scope["query_string"] = urlencode(settled).encode()

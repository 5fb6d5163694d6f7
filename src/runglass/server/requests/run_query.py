"""What a request for runs asks for: the query language and the parameters beside it, as one query.

Flows are named by slug or id in both; here they are looked up.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypedDict

from runglass.engine.scheduling.offloading import offload_in_turn
from runglass.errors import api_error
from runglass.log.trace import RunStatus
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import Parameter
from runglass.server.requests.pagination import SINCE, UNTIL, since_epoch_ms
from runglass.support.safe_text import suggestion
from runglass.wire.query import Range, RunQuery, Term
from runglass.wire.query_parser import parse_run_query, query_error

QUERY = Parameter(
    "q", str, "a query such as `status:failed flow:grade-3 since:24h` (see docs/queries.md)", argument="query"
)
STATUS = Parameter("status", RunStatus | None, "pending, running, paused, completed, failed or cancelled")
FLOW_ID = Parameter("flow_id", str, "the `flowId` of a flow")
SLUG = Parameter("flow", str, "the slug of a flow, instead of its id")

FILTERS = (QUERY, FLOW_ID, SLUG, STATUS, SINCE, UNTIL)
"""The parameters that say which runs are meant."""

NAMED_FLOWS = 100
"""So many flows are looked through for one that was meant: 0.2 ms for each long name that is similar."""


class RunFilters(TypedDict):
    """The values of `FILTERS` in a request."""

    query: str | None
    flow_id: str | None
    flow: str | None
    status: RunStatus | None
    since: str | None
    until: str | None


async def read_run_query(request: ApiRequest, filters: RunFilters) -> RunQuery:
    """The query of all filters together.

    Raises INVALID_REQUEST, and FLOW_NOT_FOUND for an unknown flow in the parameter `flow`.
    """
    store = request.services.runtime.store
    typed = parse_run_query(filters["query"] or "", now=store.clock.now())
    flow_id, slug = filters["flow_id"], filters["flow"]
    if slug is not None:
        if flow_id is not None:
            raise api_error("INVALID_REQUEST", "`flow` and `flow_id` exclude each other; send one of them")
        flow = await store.find_flow(request.auth.project_id, slug)
        if flow is None:
            raise api_error("FLOW_NOT_FOUND", f"there is no flow {slug!r} in the project of this key")
        flow_id = flow.id
    filtered = RunQuery.of(
        flow_id=flow_id,
        statuses=() if filters["status"] is None else (filters["status"],),
        created=[*_bound(filters["since"], "since"), *_bound(filters["until"], "until")],
    )
    return filtered.plus(*[await _with_flow_ids(request, term) for term in typed.terms])


def _bound(time: str | None, name: Literal["since", "until"]) -> Sequence[Range]:
    if time is None:
        return ()
    at_ms = since_epoch_ms(time, name=name)
    return [Range(low=at_ms) if name == "since" else Range(high=at_ms, high_open=True)]


async def _with_flow_ids(request: ApiRequest, term: Term) -> Term:
    if term.field != "flow":
        return term
    store, project_id = request.services.runtime.store, request.auth.project_id
    ids: list[str] = []
    for name in term.words:
        flow = await store.find_flow(project_id, name) or await store.flow(name)
        if flow is None or flow.project_id != project_id:
            slugs = [each.slug for each in await store.flows(project_id, limit=NAMED_FLOWS)]
            hint = await offload_in_turn(partial(suggestion, name.lower(), slugs))
            problem = f"the project has no flow {name!r:.100}{hint}"
            raise query_error(term.position, term.source, problem)
        ids.append(flow.id)
    return term._replace(words=tuple(ids))

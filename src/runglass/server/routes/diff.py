"""What differs between two runs, and between two attempts of a step."""

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from starlette.responses import Response

from runglass.diff.run_diff import AttemptsDiff, RunDiff
from runglass.limits.offload import offload_in_turn
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.open_responses import while_awaited
from runglass.server.routes import payload
from runglass.server.routes import runs as reading
from runglass.server.services.run_diff import diff_attempts, diff_runs
from runglass.server.services.step_attempts import chosen_attempts
from runglass.store.records import RunRecord

ALL = Parameter(
    "all",
    bool,
    "true or false: whether attempts that do not differ are listed, too",
    default=False,
    argument="with_same",
)
WITH_ATTEMPT = payload.ONE_ATTEMPT._replace(name="with_attempt", description="`attempt` of the other one")
WITH_LOOP_INDEX = reading.LOOP_INDEX._replace(
    name="with_loop_index", description="`loop_index` of the other one"
)
WITH_POSITION = reading.POSITION._replace(name="with_position", description="`position` of the other one")


async def diff(request: ApiRequest, runs: tuple[RunRecord, RunRecord], with_same: bool) -> Response:
    """Every attempt in which the runs differ, in the order of the flow, and the first difference in words.

    Attempts are paired by step, iteration and number. Durations are told, and are no difference by
    themselves. Where there is too much to compare or to tell, the answer says that it is `cut`.
    """
    return await _diff_response(
        request, partial(diff_runs, request.services.runtime.store, *runs, with_same=with_same)
    )


async def step_diff(
    request: ApiRequest,
    run: RunRecord,
    step_id: str,
    attempt: str,
    loop_index: str | None,
    position: int | None,
    with_attempt: str,
    with_loop_index: str | None,
    with_position: int | None,
) -> Response:
    """In what one attempt of a step differs from another of the same run: a retry, or another iteration.

    `a` is the attempt that `attempt`, `loop_index` and `position` find, as in the trace of the step; `b` the
    one that `with_attempt`, `with_loop_index` and `with_position` find.
    """
    store = request.services.runtime.store
    (a,) = await chosen_attempts(
        store, run, step_id, attempt=attempt, loop_index=loop_index, position=position
    )
    (b,) = await chosen_attempts(
        store, run, step_id, attempt=with_attempt, loop_index=with_loop_index, position=with_position
    )
    return await _diff_response(request, partial(diff_attempts, store, run, a, b))


async def _diff_response(
    request: ApiRequest, compare: Callable[[], Awaitable[RunDiff | AttemptsDiff]]
) -> Response:
    """What differs, as JSON. A caller who leaves before it is the project's turn is not compared for."""

    async def encoded() -> bytes:
        async with request.services.limits.diffs.turn(request.auth.project_id):
            found = await compare()
            return await offload_in_turn(partial(msgspec.json.encode, found))

    body = await while_awaited(request, None, encoded(), otherwise="nothing was changed")
    return Response(body, media_type=JSON)

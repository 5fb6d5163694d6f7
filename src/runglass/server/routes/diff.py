"""What differs between two runs."""

from functools import partial

import msgspec
from starlette.responses import Response

from runglass.diff.run_diff import RunDiff
from runglass.engine.scheduling.offloading import offload_in_turn
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.security.authentication import ComparedRuns, runtime_of
from runglass.server.security.revocation import while_allowed
from runglass.server.services.run_diff import diff_runs

ALL = Parameter(
    "all",
    bool,
    "true or false: whether attempts that do not differ are listed, too",
    default=False,
    argument="with_same",
)


async def diff(request: ApiRequest, runs: ComparedRuns, with_same: bool) -> Response:
    """Every attempt in which the runs differ, in the order of the flow, and the first difference in words.

    Attempts are paired by step, iteration and number. Durations are told, and are no difference by
    themselves. Where there is too much to compare or to tell, the answer says that it is `cut`.
    """
    return Response(
        await while_allowed(request, None, _body(request, runs, with_same), otherwise="nothing was changed"),
        media_type=JSON,
    )


async def _body(request: ApiRequest, runs: ComparedRuns, with_same: bool) -> bytes:
    store = runtime_of(request).store
    async with request.services.diffs.turn(request.auth.project_id):
        found: RunDiff = await diff_runs(store, runs.a, runs.b, with_same=with_same)
        return await offload_in_turn(partial(msgspec.json.encode, found))

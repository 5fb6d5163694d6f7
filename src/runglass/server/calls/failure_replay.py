"""Replays a failure to a client that repeats the call by itself, without an Idempotency-Key.

Some clients send a POST again after 500, 502, 503 or 504, and a flow that is run anew is paid for anew. The
first such repeat gets the failure once more; the next one runs the flow. Failures are kept in this process's
memory for seconds; an Idempotency-Key does more (`idempotency.py`).
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.responses import Response

from runglass.errors import APIError, StoreError
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON
from runglass.server.http.error_responses import answer_fault
from runglass.server.http.request_connection import CallerLeft
from runglass.server.requests.idempotency_key import CallFingerprint, fingerprint_of

REPLAYED = "Idempotent-Replayed"
"""The header of a response that repeats an earlier one."""

WITHIN_S = 3.0
MAX_ANSWERS, MAX_BYTES = 1000, 4 * 1024 * 1024
"""The most of one project, so that its failures push out no other's: a client would then pay twice."""
REPEATED_AFTER = frozenset({500, 502, 503, 504})


class ReplayableFailure(NamedTuple):
    """A response to repeat: once, or (`stays`) any number of times, where there is nothing to run anew."""

    status: int
    body: bytes
    headers: dict[str, str]
    stays: bool


class FailureReplay:
    """The failures of the last seconds, by project and call. `clock` gives seconds that never go back."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[int, OrderedDict[CallFingerprint, tuple[float, ReplayableFailure]]] = {}

    def __len__(self) -> int:
        """How many failures are remembered."""
        return sum(map(len, self._failed.values()))

    def keep(self, call: CallFingerprint, failed: ReplayableFailure) -> None:
        """Keeps a failure. If its project has too many, the project's oldest go."""
        self._forget_old()
        of_project = self._failed.setdefault(call.project_id, OrderedDict())
        of_project.pop(call, None)
        of_project[call] = (self._clock() + WITHIN_S, failed)
        size = sum(len(each.body) for _, each in of_project.values())
        while len(of_project) > MAX_ANSWERS or size > MAX_BYTES:
            _, (_, oldest) = of_project.popitem(last=False)
            size -= len(oldest.body)

    def take(self, call: CallFingerprint) -> ReplayableFailure | None:
        """The failure to repeat to this call. It is then forgotten, unless it stays."""
        self._forget_old()
        of_project = self._failed.get(call.project_id, OrderedDict())
        _, failed = of_project.get(call, (0.0, None))
        if failed is not None and not failed.stays:
            del of_project[call]
        return failed

    def _forget_old(self) -> None:
        now_s = self._clock()
        for project_id, of_project in list(self._failed.items()):
            while of_project and next(iter(of_project.values()))[0] <= now_s:
                of_project.popitem(last=False)
            if not of_project:
                del self._failed[project_id]


async def replay_failure(
    request: ApiRequest, run: Callable[[], Awaitable[Response]], *, resumes: str | None
) -> Response:
    """The response of a call that runs a flow, or the failure of the earlier call that it repeats.

    `resumes` is the run that the call resumes. A pause cannot be resumed twice, so each repeat gets the
    failure. A 503 that says that nothing was started is not repeated, as the next call may succeed.
    """
    repeats: FailureReplay = request.services.failure_replay
    # The fingerprint is made now, as the body is not held while the run goes on.
    call = await fingerprint_of(request)
    if repeats and (failed := repeats.take(call)) is not None:
        headers = {**failed.headers, REPLAYED: "true"}
        return Response(failed.body, status_code=failed.status, media_type=JSON, headers=headers)
    is_paid = True
    try:
        answer = await run()
    except CallerLeft:
        raise
    except Exception as fault:  # noqa: BLE001  # it is answered, and logged, as outside of this
        answer = answer_fault(request, fault)
        is_paid = not (answer.status_code == 503 and _started_nothing(fault))
    if answer.status_code in REPEATED_AFTER and is_paid:
        failed = ReplayableFailure(
            answer.status_code,
            bytes(answer.body),
            {name: value for name, value in answer.headers.items() if not name.startswith("content-")},
            stays=resumes is not None,
        )
        repeats.keep(call, failed)
    return answer


def _started_nothing(fault: Exception) -> bool:
    return isinstance(fault, StoreError) or (isinstance(fault, APIError) and fault.execution_id is None)

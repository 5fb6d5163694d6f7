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
MAX_ANSWERS = 1000
MAX_BYTES = 4 * 1024 * 1024
REPEATED_AFTER = frozenset({500, 502, 503, 504})


class ReplayableFailure(NamedTuple):
    """A response to repeat: once, or (`stays`) any number of times, where there is nothing to run anew."""

    status: int
    body: bytes
    headers: dict[str, str]
    stays: bool


class FailureReplay:
    """The failures of the last seconds, by call. `clock` gives seconds that never go back."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[CallFingerprint, tuple[float, ReplayableFailure]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """How many failures are remembered."""
        return len(self._failed)

    def keep(self, call: CallFingerprint, failed: ReplayableFailure) -> None:
        """Keeps a failure. Where there are too many, the oldest go."""
        self._drop(call)
        self._failed[call] = (self._clock() + WITHIN_S, failed)
        self._bytes += len(failed.body)
        while len(self._failed) > MAX_ANSWERS or self._bytes > MAX_BYTES:
            self._drop(next(iter(self._failed)))

    def take(self, call: CallFingerprint) -> ReplayableFailure | None:
        """The failure to repeat to this call. It is then forgotten, unless it stays."""
        self._forget_old()
        _, failed = self._failed.get(call, (0.0, None))
        if failed is not None and not failed.stays:
            self._drop(call)
        return failed

    def _forget_old(self) -> None:
        now_s = self._clock()
        while self._failed and next(iter(self._failed.values()))[0] <= now_s:
            self._drop(next(iter(self._failed)))

    def _drop(self, call: CallFingerprint) -> None:
        _, failed = self._failed.pop(call, (0.0, None))
        self._bytes -= 0 if failed is None else len(failed.body)


async def replay_failure(
    request: ApiRequest, run: Callable[[], Awaitable[Response]], *, resumes: str | None
) -> Response:
    """The response of a call that runs a flow, or the failure of the earlier call that it repeats.

    `resumes` is the run that the call resumes. A pause cannot be resumed twice, so each repeat gets the
    failure. A 503 that says that nothing was started is not repeated, as the next call may succeed.
    """
    repeats = request.services[FailureReplay]
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

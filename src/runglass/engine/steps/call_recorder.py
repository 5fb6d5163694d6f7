"""One request to a language model, in the event that tells of it: what was sent, the answer, the cost.

The event is recorded when the request has ended, in any way. The text that was sent is in the log before
that, as the input of the attempt.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from runglass.engine.capture.capture import Capture, Snapshot
from runglass.engine.journal.resume import WORKER_LOST
from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.models.model_types import (
    AnswerRejected,
    ModelAnswer,
    ModelCallFailed,
    ModelRequest,
    ProviderResponse,
)
from runglass.engine.payload import Payload
from runglass.errors import StepFailure
from runglass.flows.flow import LlmStep, Step
from runglass.limits.offload import offload
from runglass.log.money import ZERO, format_usd
from runglass.log.trace import ModelCall, ModelReservation, StepTrace
from runglass.support.clock import Clock, iso
from runglass.support.lazy_json import encoded

HIDDEN = "[redacted]"
DECLINED = "the server declined this request, and was asked again in another form"
"""The note of a call in whose place another one is made."""


class CallRecorder:
    """A request that is being made, the `number`th of its attempt.

    `reserved_usd`, on a budget, is the most that it can cost, which is charged where its cost is not known.
    """

    def __init__(
        self,
        request: ModelRequest,
        number: int,
        *,
        capture: Capture,
        clock: Clock,
        reserved_usd: Decimal | None = None,
    ) -> None:
        self._request = request
        self._number = number
        self._reserved_usd = reserved_usd
        self._capture = capture
        self._clock = clock
        self.is_sent = False
        """Whether it has gone out."""
        self._read: Callable[[], dict[str, Any]] = dict
        self._sent_bytes = 0
        self._sent: Snapshot | None = None
        self._received: Payload | None = None
        self._heard: list[str] = []
        self._started_at: str | None = None
        self._started_s = clock.monotonic_s()
        self._first_token_ms: int | None = None

    @property
    def is_reserved(self) -> bool:
        """Whether something was taken from a budget for it."""
        return self._reserved_usd is not None

    @property
    def reservation(self) -> ModelReservation:
        """The part of the budget that the request takes."""
        usd = format_usd(self._reserved_usd or ZERO)
        return ModelReservation(number=self._number, model=self._request.model, usd=usd)

    async def sent(self, read: Callable[[], dict[str, Any]], size_bytes: int) -> None:
        """The request goes out, as `RequestObserver` has it; where its content is kept, that is taken now.

        In other modes it is read if the call fails, and else never.
        """
        self._read, self._sent_bytes = read, size_bytes
        if self._capture.keeps_snapshots:
            await self._keep_request()
        self.is_sent = True
        self._started_at = iso(self._clock.now())
        self._started_s = self._clock.monotonic_s()

    async def _keep_request(self) -> None:
        payload = Payload(await offload(self._told, size_bytes=self._sent_bytes))
        await self._capture.prepare(payload, failed=True)
        self._sent = self._capture.kept(payload)

    async def prepare_answer(self, outcome: ModelAnswer | StepFailure) -> None:
        """Looks through a long answer, or the request of a failed call, off the event loop."""
        if isinstance(outcome, StepFailure) and self._capture.keeps_failures and self._sent is None:
            await self._keep_request()
        if isinstance(outcome, ModelAnswer | AnswerRejected):
            self._received = Payload(_received(outcome.response))
        elif self._heard:
            self._received = self._partial()
        else:
            return
        await self._capture.prepare(self._received, failed=isinstance(outcome, StepFailure))

    def hear(self, text: str) -> None:
        """A part of the answer has come."""
        self._heard.append(text)
        if self._first_token_ms is None:
            self._first_token_ms = self._elapsed_ms()

    def ended(self, outcome: ModelAnswer | ModelCallFailed | AnswerRejected) -> ModelCall:
        """The call as it is recorded, with its answer or its failure."""
        if isinstance(outcome, ModelCallFailed):
            return self._failed(outcome)
        response = outcome.response
        error_code = outcome.code if isinstance(outcome, AnswerRejected) else None
        return self._call(
            self._received or Payload(_received(response)),
            failed=error_code is not None,
            model_used=response.model_used,
            time_to_first_token_ms=self._first_token_ms if response.streamed else None,
            streamed=response.streamed,
            note=response.note,
            finish_reason=response.finish_reason,
            request_id=response.request_id,
            tokens=response.tokens,
            cached_tokens=response.cached_tokens,
            reasoning_tokens=response.reasoning_tokens,
            cost_usd=self._cost_usd(response.cost_usd),
            cost_unknown=response.cost_unknown,
            cost_estimated=response.cost_usd is None and self.is_reserved,
            error_code=error_code,
        )

    def declined(self, failure: ModelCallFailed) -> ModelCall:
        """The call in whose place another one is made: the attempt has not failed, and keeps no more."""
        return self._failed(failure, failed=False, note=DECLINED)

    def never_made(self) -> ModelCall:
        """The call as it is told where it was cut off after it had been reserved, and costs nothing."""
        model, note = self._request.model, "aborted before it was made"
        return ModelCall(
            number=self._number, model=model, provider=_provider(model), note=note, error_code="CANCELLED"
        )

    def _failed(self, failure: ModelCallFailed, *, failed: bool = True, note: str | None = None) -> ModelCall:
        is_charged = failure.may_be_charged
        return self._call(
            (self._received or self._partial()) if self._heard else None,
            failed=failed,
            time_to_first_token_ms=self._first_token_ms,
            streamed=True if self._heard else None,
            note=note,
            cost_usd=self._cost_usd(None) if is_charged else None,
            cost_unknown="no_usage" if is_charged else None,
            cost_estimated=is_charged and self.is_reserved,
            error_code=failure.code,
        )

    def _call(self, received: Payload | None, *, failed: bool, **told: Any) -> ModelCall:
        """The call that has been sent, with what the mode keeps of its request and of what was received."""
        model, sent, answer = self._request.model, None, None
        # Asked before anything is encoded: conversations grow long, and most are not kept.
        if self._capture.keeps_snapshots or (failed and self._capture.keeps_failures):
            sent = self._sent or self._capture.kept(Payload(self._told()))
            answer = None if received is None else self._capture.kept(received)
        return ModelCall(
            number=self._number,
            model=model,
            provider=_provider(model),
            started_at=self._started_at,
            duration_ms=self._elapsed_ms(),
            request=encoded(sent and sent.data),
            response=encoded(answer and answer.data),
            truncated=any(each is not None and each.truncated for each in (sent, answer)),
            **told,
        )

    def _cost_usd(self, known: Decimal | None) -> str | None:
        cost_usd = self._reserved_usd if known is None else known
        return None if cost_usd is None else format_usd(cost_usd)

    def _partial(self) -> Payload:
        """What came of an answer that broke off."""
        return Payload({"role": "assistant", "content": "".join(self._heard)})

    def _told(self) -> dict[str, Any]:
        told = self._read()
        # A body has no headers. That a step adds some is told, and of their values nothing.
        headers = {name: value for name, value in self._request.settings.items() if name == "extra_headers"}
        return told | {"settings": without_headers(told.get("settings", {}) | headers)} if headers else told

    def _elapsed_ms(self) -> int:
        return max(0, round((self._clock.monotonic_s() - self._started_s) * 1000))


def without_headers(settings: dict[str, Any]) -> dict[str, Any]:
    """A step's `settings` without the values of extra headers: they carry keys, which no mode keeps."""
    if "extra_headers" not in settings:
        return settings
    headers = settings["extra_headers"]
    return settings | {
        "extra_headers": dict.fromkeys(headers, HIDDEN) if isinstance(headers, dict) else HIDDEN
    }


def _provider(model: str) -> str | None:
    return model.partition(":")[0] if ":" in model else None


def lost_call(
    step: Step | None, before: StepTrace, tool_loop: ToolLoopState | None = None
) -> ModelCall | None:
    """The call that an attempt may have been making when its process ended, charged as it was reserved.

    None where its `step` made none. After a pause the attempt had gone on with `tool_loop`.
    """
    reservation, calls_before = before.reservation, 0
    # Each turn before a pause has made its call; those of an earlier attempt do not count here.
    if tool_loop is not None and tool_loop.attempt == before.attempt and tool_loop.step_id == before.step_id:
        calls_before = tool_loop.iterations_used
    # In the place of a declined request another one is made.
    answered = sum(call.note != DECLINED for call in before.model_calls)
    if reservation is not None:
        model, number = reservation.model, reservation.number
    elif isinstance(step, LlmStep) and answered <= calls_before:
        model, number = step.model, len(before.model_calls) + 1
    else:
        return None
    return ModelCall(
        number=number,
        model=model,
        provider=_provider(model),
        note="the process ended; whether the model was asked is not known",
        cost_usd=None if reservation is None else reservation.usd,
        cost_unknown="no_usage",
        cost_estimated=reservation is not None,
        error_code=WORKER_LOST,
    )


def _received(response: ProviderResponse) -> dict[str, Any]:
    received: dict[str, Any] = {"role": "assistant", "content": response.text or None}
    return received | {"toolCalls": response.tool_calls} if response.tool_calls else received

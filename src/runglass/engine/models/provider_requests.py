"""A request to any provider's model, through pydantic-ai: asked once, its text handed on as it comes.

Some OpenAI-compatible servers tell neither usage nor tool calls while they stream. Such a one is asked for
its answers in one piece as soon as it has shown that, and wherever tools are offered before it has shown
otherwise.

Importing this takes a second, so `gateway.py` imports it when a provider is first needed, off the event loop.
Knows no flow and no run; retries nothing, because each try must be an attempt that the trace shows.
"""

import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from traceback import walk_tb

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    ModelResponsePart,
    ModelResponsePartDelta,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models import DEFAULT_HTTP_TIMEOUT, Model, ModelRequestParameters
from pydantic_ai.providers import infer_provider_class
from pydantic_ai.settings import ModelSettings

from runglass.config.settings import Price, Settings
from runglass.engine.models import message_mapping
from runglass.engine.models.answer_bounds import ProviderCall, current_call
from runglass.engine.models.model_types import ModelAnswer, ModelRequest, RequestObserver
from runglass.engine.models.provider_clients import PreparedModel, ProviderClients
from runglass.engine.models.provider_errors import (
    CALL_ERRORS,
    call_error,
    call_failure,
    rejects_output_format,
    rejects_streaming,
    setup_failure,
)
from runglass.engine.models.response_parser import check_types, read_answer
from runglass.engine.models.usage import list_cost, take_usage_as_totals
from runglass.engine.workers.checks import Checks
from runglass.support.safe_text import printable, replace_surrogates

log = logging.getLogger(__name__)

NO_USAGE = "asked without streaming: the server reports no usage while it streams"
NO_STREAM = "asked without streaming: the server does not stream"
MAY_NOT_STREAM_TOOL_CALLS = "asked without streaming: the server may not report tool calls while it streams"


class ProviderRequests:
    """Answers requests to hosted models and OpenAI-compatible servers, whose `clients` are to be closed."""

    def __init__(self, settings: Settings, checks: Checks) -> None:
        self._read_answer = partial(read_answer, checks=checks, image_tokens=settings.image_tokens)
        self._secrets = frozenset(settings.provider_keys.values())
        self.clients = ProviderClients(settings)

    async def complete(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None],
        price: Price | None,
        observer: RequestObserver | None = None,
    ) -> ModelAnswer:
        """The model's answer; raises StepFailure, AnswerRejected among them."""

        async def declined(error: Exception) -> None:
            if observer is not None:
                await observer.declined(call_failure(error, model=request.model, secrets=self._secrets))

        provider = request.model.partition(":")[0]
        prepared = await self.clients.prepared(request.model)
        settings = message_mapping.model_settings(request.settings, provider=provider)
        if "max_retries" not in prepared.model.unsupported_settings:
            settings["max_retries"] = 0
        if request.timeout_s > DEFAULT_HTTP_TIMEOUT and "timeout" not in prepared.model.unsupported_settings:
            # A client by itself waits for ten minutes. The caller's limit comes before this one.
            settings["timeout"] = request.timeout_s + DEFAULT_HTTP_TIMEOUT
        if request.tools:
            settings["tool_choice"] = message_mapping.tool_choice(request.tool_choice)
        wanted = request.settings.get("stream")
        note = _one_piece(prepared, request) if wanted is None else None
        try:
            if note is None and wanted is not False:
                try:
                    response = await _ask(prepared, request, settings, on_text, observer, declined)
                except CALL_ERRORS as error:
                    if wanted or not rejects_streaming(error):
                        raise
                    await declined(error)
                    note = NO_STREAM
                else:
                    answer = await self._read_answer(request, response, price=price)
                    _learn_of_stream(prepared, answer, request.model)
                    return answer
            response = await _ask(prepared, request, settings, None, observer, declined)
        except CALL_ERRORS as error:
            url = prepared.model.base_url
            raise call_failure(error, model=request.model, url=url, secrets=self._secrets) from error
        answer = await self._read_answer(request, response, price=price, streamed=False, note=note)
        _learn_of_one_piece(prepared, answer, note)
        on_text(answer.response.text)
        return answer

    async def list_cost(self, model: str, *, prompt: int, completion: int) -> Decimal | None:
        """The most that so many tokens cost by the list of prices; None where it has none for the model.

        Raises StepFailure where no client for the model can be made.
        """
        prepared = await self.clients.prepared(model)
        address, name = prepared.model.base_url, prepared.model.model_name
        return list_cost(address, name, prompt=prompt, completion=completion)


def _one_piece(prepared: PreparedModel, request: ModelRequest) -> str | None:
    """Why the answer is to come in one piece, where the step does not say how; None if it is streamed."""
    if prepared.one_piece is None and request.tools and not prepared.streams_usage:
        return MAY_NOT_STREAM_TOOL_CALLS
    return prepared.one_piece


def _learn_of_stream(prepared: PreparedModel, answer: ModelAnswer, model: str) -> None:
    if prepared.streams_usage or prepared.one_piece is not None:
        return
    if answer.response.cost_unknown != "no_usage":
        prepared.streams_usage = True
    else:
        prepared.one_piece = NO_USAGE
        log.warning("model %s from now on is %s", printable(model), NO_USAGE)


def _learn_of_one_piece(prepared: PreparedModel, answer: ModelAnswer, note: str | None) -> None:
    if note == NO_STREAM:
        prepared.one_piece = NO_STREAM
    elif note == NO_USAGE and answer.response.cost_unknown == "no_usage":
        # The server tells no usage in either way: nothing is gained, and a stream shows its text at once.
        prepared.one_piece, prepared.streams_usage = None, True


def unknown_provider(model: str) -> str | None:
    """The mistake in a model string whose provider pydantic-ai does not know; None where it does."""
    try:
        infer_provider_class(model.partition(":")[0])
    except ImportError:
        # A known one, whose package is not installed: a flow may name it in a branch that is never taken.
        return None
    except ValueError as error:
        return str(setup_failure(error, model=model))
    return None


async def _ask(
    prepared: PreparedModel,
    request: ModelRequest,
    settings: ModelSettings,
    on_text: Callable[[str], None] | None,
    observer: RequestObserver | None,
    declined: Callable[[Exception], Awaitable[None]],
) -> ModelResponse:
    """The response, streamed to `on_text`, or in one piece where there is none."""
    messages = message_mapping.model_messages(request.messages, system=request.system)
    forms = prepared.forms.copy()
    while True:
        form = forms.pop(0)
        parameters = message_mapping.parameters(request, form)
        chosen = message_mapping.with_form(settings, request, form)
        call = ProviderCall(request.model, observer, is_streamed=on_text is not None)
        making = current_call.set(call)
        try:
            if not prepared.shows_requests:
                _, asked = prepared.model.prepare_request(chosen, parameters)
                await call.sent(partial(message_mapping.as_prepared, request, asked), 0)
            if on_text is not None:
                response = await _stream(call, prepared.model, messages, chosen, parameters, on_text)
            else:
                response = await model_request(
                    prepared.model, messages, model_settings=chosen, model_request_parameters=parameters
                )
            check_types(response)
            if on_text is None:
                for part in response.parts:
                    call.require_part(len(_grown(part)))
            return response
        except Exception as error:
            if call.failure is not None:
                # A library may have made something else of it, or this is it: no error may be its own cause.
                raise call.failure from None
            if not isinstance(error, CALL_ERRORS) and _is_ours(error):
                raise
            failed = call_error(error, call)
            if request.output_schema is None or not forms or not rejects_output_format(failed):
                if failed is error:
                    raise
                raise failed from failed.__cause__
            is_answer = not isinstance(failed, UserError)
            await declined(failed)
        finally:
            current_call.reset(making)
            await call.end()
        # Nothing was generated or charged: the form was declined, so the next one is tried, from now on where
        # that was the server's answer. A call beside this one may have dropped the form already.
        if is_answer and form == prepared.forms[0]:
            del prepared.forms[0]


def _is_ours(error: Exception) -> bool:
    """Whether it was raised in code of ours that a library had called, and not by what a provider sent."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    reads = __name__.rpartition(".")[0]
    return any(name.startswith("runglass.") and not name.startswith(reads) for name in modules)


async def _stream(
    call: ProviderCall,
    model: Model,
    messages: list[ModelMessage],
    settings: ModelSettings,
    parameters: ModelRequestParameters,
    on_text: Callable[[str], None],
) -> ModelResponse:
    sizes: dict[int, int] = {}
    async with model_request_stream(
        model, messages, model_settings=settings, model_request_parameters=parameters
    ) as stream:
        take_usage_as_totals(stream)
        half = ""
        async for event in stream:
            if not isinstance(event, PartStartEvent | PartDeltaEvent):
                continue
            part = event.part if isinstance(event, PartStartEvent) else event.delta
            grown = _grown(part)
            size = sizes[event.index] = sizes.get(event.index, 0) + len(grown)
            # The libraries copy what they have for each piece that is added to it.
            call.require_part(size)
            if not isinstance(part, TextPart | TextPartDelta):
                continue
            piece = half + grown
            # A chunk may end between the halves of a character; the first waits for the second.
            half = piece[-1:] if "\ud800" <= piece[-1:] <= "\udbff" else ""
            piece = replace_surrogates(piece.removesuffix(half))
            if piece:
                on_text(piece)
        if half:
            on_text(replace_surrogates(half))
    if call.failure is not None:
        raise call.failure
    return stream.get()


def _grown(part: ModelResponsePart | ModelResponsePartDelta) -> str:
    """What a part of an answer, or a piece of one, has of text, reasoning, or arguments of a tool call."""
    match part:
        case TextPart(content=more) | ThinkingPart(content=more) | TextPartDelta(content_delta=more):
            return more
        case ThinkingPartDelta(content_delta=str(more)):
            return more
        case ToolCallPart(args=str(more)) | ToolCallPartDelta(args_delta=str(more)):
            return more
        case _:
            return ""

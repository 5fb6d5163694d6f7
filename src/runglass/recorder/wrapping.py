"""Records each call of a client of the library openai or anthropic as a step with its model call.

All that such a client sends passes its method `request`, with the body as it is sent, and retries happen
inside. So `wrap` replaces this one method, on this one client: `create`, `parse`, `.stream()` and raw
responses of all resources are covered and return what they did. A stream stays the same object; its iterator
is replaced. Imports neither library: if a part has an unknown shape, less is recorded.
"""

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runglass.recorder.responses import StreamedAnswer
from runglass.recorder.spans import OpenCall, report

if TYPE_CHECKING:
    from runglass.recorder.recorder import Recorder

T = TypeVar("T")

_LIBRARIES = ("openai", "anthropic")
_BASES = ("SyncAPIClient", "AsyncAPIClient")
"""The base classes of all clients in both libraries, including those for Azure, Bedrock and Vertex."""
_PLATFORMS = {"Azure": "azure", "Bedrock": "bedrock", "Vertex": "google-vertex"}
"""Providers other than the library's own, by a part of the client's class name."""
_PATHS = ("/chat/completions", "/responses", "/completions", "/embeddings", "/v1/messages")
_CONVERSATIONS = ("messages", "input", "prompt")
_INSTRUCTIONS = ("system", "instructions")
_NOT_GIVEN = ("Omit", "NotGiven")


def wrap(recorder: "Recorder", client: T) -> T:
    """The client itself, which records its calls from now on. Wrapping it again changes nothing."""
    bases = [(base.__module__.partition(".")[0], base.__name__) for base in type(client).__mro__]
    library = next((module for module, name in bases if module in _LIBRARIES and name in _BASES), None)
    if library is None:
        raise TypeError(
            f"cannot wrap a {type(client).__name__}: `wrap` takes a client of the library openai or anthropic"
            " (OpenAI, AsyncOpenAI, Anthropic, AsyncAnthropic, ...); record other calls with `model_call`"
        )
    wrapped: Any = client
    request, named = wrapped.request, type(client).__name__
    recorders = getattr(request, "recorders", ())
    if recorder in recorders:
        return client
    provider = next((provider for word, provider in _PLATFORMS.items() if word in named), library)
    recorded: Any
    if inspect.iscoroutinefunction(request):

        @functools.wraps(request)
        async def recorded(*args: Any, **kwargs: Any) -> Any:
            with _recording(recorder, provider, args, kwargs) as take:
                return take(await request(*args, **kwargs))

    else:

        @functools.wraps(request)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with _recording(recorder, provider, args, kwargs) as take:
                return take(request(*args, **kwargs))

    recorded.recorders = (*recorders, recorder)
    wrapped.request = recorded
    for name in ("copy", "with_options"):
        setattr(client, name, _copying(recorder, getattr(client, name)))
    return client


def _copying(recorder: "Recorder", copy: Callable[..., T]) -> Callable[..., T]:
    return functools.wraps(copy)(lambda *args, **kwargs: wrap(recorder, copy(*args, **kwargs)))


@contextmanager
def _recording(
    recorder: "Recorder", provider: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[Callable[[Any], Any]]:
    """The block of a request; yields the function that records its result and returns it."""
    call = None
    try:
        call = _begin(recorder, provider, kwargs["options"] if "options" in kwargs else args[1])
    except Exception as error:
        report("a request of a wrapped client has an unknown shape, and is not recorded", error)
    if call is None:
        yield lambda result: result
        return
    try:
        with call.active():
            yield functools.partial(_take, call, bool(kwargs.get("stream")))
    except BaseException as error:
        _fail(call, error)
        raise


def _begin(recorder: "Recorder", provider: str, options: Any) -> OpenCall | None:
    """Begins the call that this request is; None if it is no model call, or not recorded."""
    if (path := options.url.partition("?")[0]) not in _PATHS or options.method.lower() != "post":
        return None
    body = {**(options.json_data or {}), **(options.extra_json or {})}
    body = {name: value for name, value in body.items() if type(value).__name__ not in _NOT_GIVEN}
    messages = next((told for name in _CONVERSATIONS if (told := body.pop(name, None)) is not None), None)
    system = next((told for name in _INSTRUCTIONS if (told := body.pop(name, None)) is not None), None)
    if system is not None:
        asked = messages if isinstance(messages, list) else [{"role": "user", "content": messages}]
        messages = [{"role": "system", "content": system}, *asked]
    call = recorder.model_call(
        model=body.pop("model", None),
        provider=provider,
        messages=messages,
        tools=body.pop("tools", None),
        settings=body,
        operation="embeddings" if path == "/embeddings" else "chat",
    )
    return None if call.delivery is None else call.start()


def _fail(call: OpenCall, error: BaseException) -> None:
    if type(status := getattr(error, "status_code", None)) is int:
        call.facts["http.response.status_code"] = status
    call.end(error)


def _take(call: OpenCall, is_stream: bool, result: Any) -> Any:
    """Ends the call with its result, unless that is a stream, which ends the call later."""
    try:
        if (http := getattr(result, "http_response", None)) is not None:
            # A raw response: only its caller may read the body, unless the client has already.
            if http.is_closed:
                call.response = msgspec.json.decode(http.content)
            elif is_stream:
                # `parse()` of the caller's returns this stream, which has read nothing yet.
                result._parsed_by_type[result._cast_to] = stream = result._parse()
                WatchedStream(call, stream)
                return result
        elif is_stream:
            WatchedStream(call, result)
            return result
        else:
            call.response = result
    except Exception as error:
        report("what a wrapped client returned has an unknown shape, and is not recorded", error)
    call.end()
    return result


class WatchedStream:
    """The iterator of a stream: passes on the chunks, and ends the call if the stream ends, fails or is left.

    A stream is left when its response is closed, or when it is garbage-collected, no later than before.
    """

    _is_reading = _has_read = True

    def __init__(self, call: OpenCall, stream: Any) -> None:
        self._call, self._answer = call, StreamedAnswer()
        # The library's helpers close the response, not the stream; both close its body.
        body, name = stream.response.stream, "aclose" if hasattr(stream, "__anext__") else "close"
        close, watched = getattr(body, name), weakref.ref(self)

        def closing() -> Any:
            if (stream := watched()) is not None:
                stream.leave()
            return close()

        setattr(body, name, closing)
        self._chunks, stream._iterator = stream._iterator, self
        self._is_reading = self._has_read = False

    def __iter__(self) -> "WatchedStream":
        return self

    def __aiter__(self) -> "WatchedStream":
        return self

    def __next__(self) -> Any:
        with self._reading():
            chunk = self._chunks.__next__()
        self._add(chunk)
        return chunk

    async def __anext__(self) -> Any:
        with self._reading():
            chunk = await self._chunks.__anext__()
        self._add(chunk)
        return chunk

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._is_reading = self._has_read = True
        try:
            yield
        except BaseException as error:
            self._end(error)
            raise
        finally:
            self._is_reading = False

    def leave(self) -> None:
        """Ends the call, unless the stream is closing its response itself because it has ended."""
        if not self._is_reading:
            # A body of which no chunk was asked may have been read to its end, as it is.
            self._end(GeneratorExit() if self._has_read else StopIteration())

    __del__ = leave

    def _add(self, chunk: object) -> None:
        try:
            self._call.first_token()
            self._answer.add(chunk)
        except Exception as error:
            report("a chunk of a stream could not be read, and is not recorded", error)

    def _end(self, error: BaseException) -> None:
        if self._call.end_ns:
            return
        is_ended = isinstance(error, StopIteration | StopAsyncIteration)
        try:
            self._call.set_answer(self._answer.answer(is_ended=is_ended))
        except Exception as failed:
            report("the answer of a stream could not be read, and is not recorded", failed)
        if is_ended:
            self._call.end()
        else:
            _fail(self._call, error)

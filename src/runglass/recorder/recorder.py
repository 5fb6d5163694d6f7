"""Records what the user's own Python does: decorators and blocks, each a step of a run.

Nothing here raises into the user's code, whose results and exceptions pass unchanged.

More than 300 lines: one decorator for each kind of function.
"""

import functools
import inspect
import os
import random
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from threading import TIMEOUT_MAX
from types import TracebackType
from typing import Any, Generic, Self, TypedDict, TypeVar, Unpack, cast, overload

import msgspec

from runglass.client.core.connection import endpoint
from runglass.errors import RunglassError
from runglass.log.span_state import SpanKind
from runglass.recorder.delivery import EXIT_S, Delivery, Mask
from runglass.recorder.spans import (
    KINDS,
    MODES,
    CallOptions,
    OpenCall,
    OpenRun,
    OpenStep,
    attempts,
    current,
    log,
    lower,
    report,
    require_known,
)
from runglass.recorder.spool import default_folder
from runglass.recorder.values import MOST_BYTES, snapshot, type_name
from runglass.recorder.wrapping import wrap
from runglass.wire.run_api import CaptureMode, read_trace_context

Function = TypeVar("Function", bound=Callable[..., Any])
Step = TypeVar("Step", bound=OpenStep)
Client = TypeVar("Client")

MOST_ITEMS = 100_000
"""So many items of a stream are kept for functions of the user's."""
_LATER = ("coroutine", "generator", "async_generator")
_NOT_RECORDED = "runglass=off"
_OF_A_RUN = {"tags", "metadata", "user", "session"}
_DEFAULT: Any = object()


def current_step() -> OpenStep | None:
    """The step in which the code runs that asks; None outside of any."""
    return current.get()


def current_run() -> OpenRun | None:
    """The run of the current step; None outside of any."""
    step = current.get()
    return None if step is None else step.run


class StepOptions(TypedDict, total=False):
    """What is said of a step before it begins."""

    kind: SpanKind
    capture: CaptureMode
    inputs: Sequence[str]
    process_inputs: Callable[[dict[str, Any]], Any]
    process_outputs: Callable[[Any], Any]
    reduce: Callable[[list[Any]], Any]
    tags: Iterable[str]
    metadata: Mapping[str, object]


class RunOptions(StepOptions, total=False):
    """And of a run."""

    user: str
    session: str
    parent: Mapping[str, str] | None


class Block(Generic[Step]):
    """A step to be: a block that records what happens in it, or a decorator that records each call."""

    def __init__(
        self, recorder: "Recorder", name: str | None, options: dict[str, Any], *, is_run: bool
    ) -> None:
        self._recorder = recorder
        self.name = name
        self.options = options
        self._is_run = is_run
        self._open: dict[OpenStep, None] = {}

    def opened(self, name: str) -> OpenStep:
        """A step that has not begun, inside of the current one."""
        return self._recorder.opened(name, self.options, is_run=self._is_run)

    def __enter__(self) -> Step:
        step = cast(Step, self.opened(self.name or (self._recorder.flow if self._is_run else "step")))
        entered = step.__enter__()
        self._open[step] = None
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        # Several tasks may be in it: each leaves the innermost step that it has entered.
        step = current.get()
        while step is not None and step not in self._open:
            step = step.parent
        if step is None:
            # Left in another context than it was entered in.
            step = next(reversed(self._open))
        del self._open[step]
        step.__exit__(kind, error, where)

    def __call__(self, function: Function) -> Function:
        """The function, with each of its calls recorded."""
        if isinstance(function, staticmethod | classmethod):
            return cast(Function, type(function)(self(function.__func__)))
        if isinstance(function, type) or not callable(function):
            what = f"cannot record a {type_name(function)}"
            raise TypeError(f"{what}: decorate functions and methods, below `@property` and its like")
        recorded = RecordedFunction(self, function)
        if inspect.isasyncgenfunction(function):
            call: Any = recorded.async_generator()
        elif inspect.isgeneratorfunction(function):
            call = recorded.generator()
        elif inspect.iscoroutinefunction(function):
            call = recorded.coroutine()
        else:
            call = recorded.plain()
        return cast(Function, functools.wraps(function)(call))


class Items:
    """What a generator has given, each as it was then, up to `MOST_BYTES` of JSON.

    Functions of the user's get the items themselves, up to `MOST_ITEMS`.
    """

    def __init__(self, step: OpenStep, options: Mapping[str, Any]) -> None:
        self.kept: list[Any] = []
        self._step = step
        self._left = MOST_BYTES
        self._are_texts = True
        self._are_given = not options.keys().isdisjoint(("reduce", "process_outputs"))

    def add(self, item: Any) -> None:
        step = self._step
        if step.delivery is None or step.capture == "off":
            return
        if self._left <= 0 or len(self.kept) == MOST_ITEMS:
            step.facts["runglass.truncated"] = True
            step.note(f"only the first {len(self.kept):,} items are recorded")
            return
        try:
            # Not by `isinstance`: what stands for something else, and has nothing now, raises.
            self._are_texts = self._are_texts and issubclass(type(item), str)
            if not self._are_given:
                data, is_cut = snapshot(item)
                item = msgspec.json.decode(data)
                self._left -= len(data)
                if is_cut:
                    step.facts["runglass.truncated"] = True
            self.kept.append(item)
        except Exception as error:
            report("an item of a generator could not be read, and is not recorded", error)

    def joined(self) -> Any:
        """Texts as one, others as a list."""
        return "".join(self.kept) if self._are_texts else self.kept


class RecordedFunction:
    """A function of the user's, and what is recorded of each call."""

    def __init__(self, block: Block[Any], function: Callable[..., Any]) -> None:
        self._block = block
        self._options = block.options
        self._function = function
        self._name = block.name or getattr(function, "__name__", "") or "call"
        self._names: list[str] = []
        self._rest = ""
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            parameters = {}.values()
        for each in parameters:
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
                self._names.append(each.name)
            elif each.kind is each.VAR_POSITIONAL:
                self._rest = f"*{each.name}"
        self._is_method = self._names[:1] in (["self"], ["cls"])

    def plain(self) -> Callable[..., Any]:
        function = self._function

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._opened(args, kwargs) as step:
                result = function(*args, **kwargs)
                self._take(step, result)
            return result

        return call

    def coroutine(self) -> Callable[..., Any]:
        function = self._function

        async def call(*args: Any, **kwargs: Any) -> Any:
            with self._opened(args, kwargs) as step:
                result = await function(*args, **kwargs)
                self._take(step, result)
            return result

        return call

    def generator(self) -> Callable[..., Any]:
        function = self._function

        def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            result = None
            with self._opened(args, kwargs) as step:
                items = Items(step, self._options)
                step.leave()
                source = function(*args, **kwargs)
                advance: Callable[[], Any] = source.__next__
                try:
                    while True:
                        with step.active():
                            item = advance()
                        items.add(item)
                        try:
                            advance = functools.partial(source.send, (yield item))
                        except GeneratorExit:
                            with step.active():
                                source.close()
                            raise
                        except BaseException as error:
                            advance = functools.partial(source.throw, error)
                except StopIteration as stop:
                    result = stop.value
                finally:
                    self._take(step, result, items)
            return result

        return call

    def async_generator(self) -> Callable[..., Any]:
        function = self._function

        async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with self._opened(args, kwargs) as step:
                items = Items(step, self._options)
                step.leave()
                source = function(*args, **kwargs)
                advance: Callable[[], Any] = source.__anext__
                try:
                    while True:
                        with step.active():
                            item = await advance()
                        items.add(item)
                        try:
                            advance = functools.partial(source.asend, (yield item))
                        except GeneratorExit:
                            with step.active():
                                await source.aclose()
                            raise
                        except BaseException as error:
                            advance = functools.partial(source.athrow, error)
                except StopAsyncIteration:
                    pass
                finally:
                    self._take(step, None, items)

        return call

    def _opened(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OpenStep:
        """The step of a call, which is to be a block."""
        step = self._block.opened(self._name)
        try:
            if step.delivery is not None and (given := self._given(args, kwargs)):
                step.input = given
        except Exception as error:
            report("the arguments of a function could not be read, and are not recorded", error)
            step.note(f"the arguments could not be read: {type(error).__name__}")
        return step

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments by their names, without `self`."""
        names, options = self._names, self._options
        given: dict[str, Any] = dict(zip(names, args, strict=False))
        if self._is_method:
            given.pop(names[0], None)
        if len(args) > len(names):
            given[self._rest or "*args"] = args[len(names) :]
        given |= kwargs
        if (wanted := options.get("inputs")) is not None:
            given = {name: value for name, value in given.items() if name in wanted}
        process = options.get("process_inputs")
        return given if process is None else process(given)

    def _take(self, step: OpenStep, result: Any, items: Items | None = None) -> None:
        """Records the result, or what the items of a generator come to."""
        if step.delivery is None:
            return
        if (kind := type_name(result)) in _LATER:
            step.note(f"it returned a {kind}, which runs after its end and is not part of it")
        if step.capture == "off":
            return
        try:
            if items is not None:
                if (reduce := self._options.get("reduce")) is not None:
                    result = reduce(items.kept)
                elif items.kept or result is None:
                    result = items.joined()
            process = self._options.get("process_outputs")
            step.output = result if process is None else process(result)
        except Exception as error:
            report("the result of a function could not be read, and is not recorded", error)
            step.note(f"the result could not be read: {type(error).__name__}")


class Recorder:
    """Records runs of the flow `flow` and sends them to a server: key and address as those of `Client`.

    Without a key it does nothing, and logs that once. `capture` is the most content that leaves the process;
    the server may keep less. `sample` is the share of runs that are recorded. `mask` gets each value, as JSON
    has it, and gives what is sent of it. With `durable` each step waits until its begin, and its end, is
    stored. What cannot be sent waits in the folder `spool`, by default in that of the user's state; None for
    none. About `buffer_bytes` wait in memory. Once nothing was heard of the process for `lease_s`, the server
    takes it for dead, and its open steps fail.
    """

    def __init__(
        self,
        flow: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        capture: CaptureMode = "full",
        sample: float = 1.0,
        mask: Mask | None = None,
        durable: bool = False,
        spool: str | os.PathLike[str] | None = _DEFAULT,
        release: str | None = None,
        environment: str | None = None,
        buffer_bytes: int = 32 << 20,
        lease_s: int = 30,
    ) -> None:
        if not flow.strip():
            raise ValueError(f"flow must be the name of a flow, not {flow!r}")
        if capture not in MODES:
            raise ValueError(f"capture must be one of {', '.join(MODES)}, not {capture!r}")
        if lease_s < 1:
            raise ValueError(f"lease_s must be a number of seconds from 1 on, not {lease_s!r}")
        if not 0 <= sample <= 1:
            raise ValueError(f"sample must be a share from 0 to 1, not {sample!r}")
        self.flow = flow
        self._capture: CaptureMode = capture
        self._sample = sample
        self._delivery: Delivery | None = None
        try:
            server = endpoint(api_key=api_key, base_url=base_url, timeout=None, max_retries=0)
        except (RunglassError, ValueError) as error:
            log.warning("nothing of %r is recorded: %s", flow, error)
            return
        self._delivery = Delivery(
            server,
            flow,
            release=release,
            environment=environment,
            mask=mask,
            spool=default_folder() if spool is _DEFAULT else spool,
            is_durable=durable,
            buffer_bytes=buffer_bytes,
            lease_s=lease_s,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @overload
    def run(self, function: Function, /) -> Function: ...
    @overload
    def run(self, name: str | None = None, **options: Unpack[RunOptions]) -> Block[OpenRun]: ...
    def run(self, name: Any = None, **options: Any) -> Any:
        """Records a run: a decorator, bare or called, or a block. Inside of a run it is a step of that.

        `capture` lowers what is sent of its content, and of what is inside. `inputs` names the arguments that
        are recorded. `process_inputs` gets the arguments by name, `process_outputs` the result, and `reduce`
        the items of a generator; what they return is recorded. `parent` has the headers of a request that
        another recorder's `headers()` has made.
        """
        return self._block(name, {"kind": "chain", **options}, is_run=True)

    @overload
    def step(self, function: Function, /) -> Function: ...
    @overload
    def step(self, name: str | None = None, **options: Unpack[StepOptions]) -> Block[OpenStep]: ...
    def step(self, name: Any = None, **options: Any) -> Any:
        """Records a step, as `run` records a run. Outside of a run it is one of its own."""
        return self._block(name, options, is_run=False)

    def _block(self, name: Any, options: dict[str, Any], *, is_run: bool) -> Any:
        known = RunOptions.__annotations__ if is_run else StepOptions.__annotations__
        require_known(options, known)
        for option, allowed in (("capture", MODES), ("kind", KINDS)):
            if (told := options.get(option, allowed[0])) not in allowed:
                raise ValueError(f"{option} must be one of {', '.join(allowed)}, not {told!r}")
        if callable(name) or hasattr(name, "__get__"):
            return Block[OpenStep](self, None, options, is_run=is_run)(name)
        return Block[OpenStep](self, None if name is None else str(name), options, is_run=is_run)

    def model_call(self, **asked: Unpack[CallOptions]) -> OpenCall:
        """A call of a model in the current step, or a run of its own; else as `OpenStep.model_call`."""
        return OpenCall(asked, delivery=self._sampled(), parent=current.get(), capture=self._capture)

    def wrap(self, client: Client) -> Client:
        """The client itself, of the library openai or anthropic: each of its calls is recorded from now on.

        Raises TypeError for any other object.
        """
        return wrap(self, client)

    @contextmanager
    def attempts(self) -> Iterator[None]:
        """A block in which a step of the same name after one that has failed is its next attempt."""
        # No token: the block may end in another context than it began in.
        before = attempts.get()
        attempts.set({})
        try:
            yield
        finally:
            attempts.set(before)

    def headers(self) -> dict[str, str]:
        """Headers by which `run(parent=…)` in another process goes on in the current step, if any."""
        step = current.get()
        if step is None:
            return {}
        parent = f"00-{step.trace_id}-{step.span_id}"
        if step.delivery is None:
            return {"traceparent": f"{parent}-00", "tracestate": _NOT_RECORDED}
        step.top.is_shared = True
        return {"traceparent": f"{parent}-01"}

    def bind(self, function: Function) -> Function:
        """The function, to be called in another thread with what is the current step now."""
        context = copy_context()

        def call(*args: Any, **kwargs: Any) -> Any:
            # A copy: no two threads may be in one context.
            return context.copy().run(function, *args, **kwargs)

        return cast(Function, functools.wraps(function)(call))

    def flush(self, timeout: float = 30.0) -> bool:
        """Waits up to `timeout` seconds until all that was recorded is stored; False where it is not."""
        return True if self._delivery is None else self._delivery.flush(_bound_s(timeout))

    def close(self, timeout: float = EXIT_S) -> None:
        """Sends what is left, or spools it, as the end of the program does. Nothing is recorded after it."""
        if self._delivery is not None:
            self._delivery.close(_bound_s(timeout))

    def _sampled(self) -> Delivery | None:
        """Where a new run goes; None for one that is not recorded."""
        if self._sample < 1 and current.get() is None and random.random() >= self._sample:
            return None
        return self._delivery

    def opened(self, name: str, options: Mapping[str, Any], *, is_run: bool) -> OpenStep:
        """A step that has not begun, inside of the current one."""
        headers: Mapping[str, str] | None = options.get("parent")
        kind: SpanKind = options.get("kind", "code")
        around = current.get() if headers is None else None
        step = (OpenRun if is_run or around is None else OpenStep)(
            name,
            kind,
            delivery=self._delivery if around is not None else self._sampled(),
            parent=around,
            capture=lower(options.get("capture", "full"), self._capture),
        )
        try:
            if is_run and kind in ("agent", "chain"):
                named = "agent" if kind == "agent" else "workflow"
                step.facts |= {"gen_ai.operation.name": f"invoke_{named}", f"gen_ai.{named}.name": name}
            if headers is not None:
                told = {str(name).lower(): value for name, value in headers.items()}
                context = read_trace_context([told.get("traceparent", "")], [told.get("tracestate", "")])
                if context is not None:
                    _, step.trace_id, step.parent_id, _ = context.parent.split("-")[:4]
                    is_recorded = context.state is None or _NOT_RECORDED not in context.state
                    step.delivery = self._delivery if is_recorded else None
            if facts := {key: options[key] for key in options if key in _OF_A_RUN}:
                step.add(**facts)
        except Exception as error:
            report("what is said of a step could not be read", error)
        return step


def _bound_s(timeout: float | None) -> float:
    """The bound as a lock takes it; None, as in Python itself, is none."""
    return TIMEOUT_MAX if timeout is None else min(timeout, TIMEOUT_MAX)

"""What a worker process does to render templates.

minijinja bounds how much a template computes, not how much it makes of that: three nested `[…] * 1000` take
all memory, and a failed allocation ends the process. Templates can also change the objects that they are
given, by `{{ items.pop() }}`. So they are rendered there, on copies, in processes of their project that they
may take down. Knows neither flows nor steps.
"""

from collections.abc import ItemsView, KeysView, ValuesView
from typing import Any, Literal

import minijinja
import msgspec

from runglass.errors import StepFailure

FUEL = 5_000_000
"""The limits of a template: instructions, and bytes of text. At most half a second's worth."""
TEXT_LIMIT = 16 * 1024 * 1024

_NESTED = (dict, list, tuple, KeysView, ValuesView, ItemsView)
_FAULT_LENGTH = 500


class RenderRequest(msgspec.Struct, frozen=True, array_like=True):
    """A template, and whether its text is wanted or the value of its one expression."""

    template: str
    names: dict[str, Any]
    want: Literal["text", "value"]


def template_error(message: str) -> StepFailure:
    """The failure of a step whose template cannot be rendered."""
    return StepFailure("TEMPLATE_ERROR", message, may_retry=False)


_decoder = msgspec.json.Decoder(RenderRequest)
# `Environment.render_str` has a parameter `self`, and so cannot be given a name like that.
_render_str: Any = minijinja.Environment.__mro__[1].render_str  # type: ignore[attr-defined]


class Renderer:
    """Renders templates in this process."""

    def __init__(self) -> None:
        self._last: Any = None
        self._environment = minijinja.Environment(
            undefined_behavior="strict",
            fuel=FUEL,
            auto_escape_callback=lambda _: False,
            keep_trailing_newline=True,
            finalizer=self._written,
            filters={"tojson": _json},
        )

    def answer(self, ask: RenderRequest) -> bytes:
        """The text or value as JSON. Raises StepFailure TEMPLATE_ERROR, and nothing else for a template."""
        try:
            text: str = _render_str(self._environment, ask.template, **ask.names)
            if len(text) > TEXT_LIMIT:
                raise template_error(f"the template makes a text of more than {TEXT_LIMIT} characters")
            made = text if ask.want == "text" else self._last
            return msgspec.json.encode(made, enc_hook=_listed)
        except StepFailure:
            raise
        except minijinja.TemplateError as error:
            raise template_error(_fault(error)) from error
        except MemoryError as error:
            raise template_error("the template takes too much memory") from error
        except Exception as error:
            # A method of an object that the template called, like `.pop()` with a wrong key.
            message = f"{type(error).__name__} in the template: {error}"[:_FAULT_LENGTH]
            raise template_error(message) from error
        finally:
            self._last = None

    def _written(self, value: Any) -> Any:
        # Objects stand in a text as JSON: a language model, or a person, expects no Python there.
        self._last = value
        if callable(value):
            raise TypeError("a method, or function, stands where a value is needed; is there no such key?")
        return _json(value) if isinstance(value, _NESTED) else NotImplemented


def _json(value: Any, indent: int | None = None) -> str:
    encoded = msgspec.json.encode(value, enc_hook=_listed)
    if indent:
        encoded = msgspec.json.format(encoded, indent=min(int(indent), 8))
    return encoded.decode()


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, _NESTED):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")


def _fault(error: minijinja.TemplateError) -> str:
    told = error.detail or error.kind
    if error.kind == "UndefinedError":
        told = told.replace("is undefined", "does not exist")
    elif error.kind == "SyntaxError":
        told = f"the template is malformed: {told}"
    elif error.kind == "OutOfFuel":
        told = "the template does too much work, or makes too much text"
    where = f" (line {error.line})" if error.line else ""
    return told[:_FAULT_LENGTH] + where


_renderer = Renderer()


def answered(message: bytes) -> bytes:
    """What a RenderRequest gives, both as JSON. Raises StepFailure."""
    return _renderer.answer(_decoder.decode(message))

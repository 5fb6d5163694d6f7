"""One endpoint of the HTTP API as a value: method and path, roles, parameters, and the response.

The table of all endpoints (`endpoints.py`) is a list of these. Routes, access, the checks of parameters and
the OpenAPI document come from it. Knows nothing of the web framework.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from runglass.errors import api_error

JSON = "application/json"

Access: TypeAlias = Literal["open", "record", "read", "run", "admin"]
"""The lowest role that may call an endpoint; an open endpoint needs no key."""

ROLES: Mapping[Access, tuple[str, ...]] = {
    "record": ("record", "run", "admin"),
    "read": ("read", "run", "admin"),
    "run": ("run", "admin"),
    "admin": ("admin",),
}

Schema: TypeAlias = Mapping[str, Any]
"""A JSON Schema."""


class Parameter(NamedTuple):
    """A parameter of the query, or a header whose value is text."""

    name: str
    type: Any
    """The type that msgspec converts the text to."""
    description: str
    """The values that fit, for the documentation and for the error about any other value."""
    default: Any = None
    argument: str = ""
    """The name of the handler's argument, where it differs from `name`."""

    @property
    def key(self) -> str:
        return self.argument or self.name

    def convert(self, text: str) -> Any:
        """The value of the text. Raises INVALID_REQUEST."""
        try:
            return msgspec.convert(text, self.type, strict=False)
        except msgspec.ValidationError as error:
            raise api_error("INVALID_REQUEST", f"`{self.name}` must be {self.description}") from error


class Lookup(NamedTuple):
    """How the object that the path names is found. `find` raises the error for a missing one."""

    find: Callable[..., Awaitable[Any]]
    path: tuple[str, ...]
    """The parts of the path that `find` takes, by name."""
    argument: str = ""
    """The name of the handler's argument for the object."""


class Answer(NamedTuple):
    """The response of a call that succeeds."""

    shapes: tuple[Any, ...]
    """The types that the body may have."""
    description: str
    status: int = 200
    media_type: str = JSON
    also: tuple[str, ...] = ()
    """Further media types, in which the body is text."""
    beside: Mapping[int, str] = {}
    """Descriptions of the statuses that are as good, and whose bodies have no shape of their own."""


class Endpoint(NamedTuple):
    """A method of a path. The docstring of its handler describes it."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    """The path. The handler gets the parts in braces by their names."""
    handler: Callable[..., Awaitable[Any]]
    summary: str
    answer: Answer
    access: Access
    tag: str = ""
    description: str = ""
    """The description, where the handler's docstring does not serve."""
    body: Mapping[str, Schema] | None = None
    """Schemas of the body by media type."""
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    raw_headers: tuple[Parameter, ...] = ()
    """Headers that are read further in, by rules of their own; here they are only described."""
    finds: Lookup | None = None
    """The lookup that is made before the handler is called; the handler gets its object."""
    hides: Lookup | None = None
    """Looked up before a role is refused, so that other projects get NOT_FOUND in any case."""
    doing: str = ""
    """The action in words, for the refusal of a key whose role is too low."""
    refuses_unknown: bool = False
    """Whether unknown parameters are refused: a filter that is ignored looks as if it worked."""
    is_lasting: bool = False
    """Whether the response may take as long as a run."""

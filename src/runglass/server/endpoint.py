"""One endpoint of the HTTP API as a value: what is asked, by whom, with which parameters, and the answer.

The table of all endpoints (`endpoints.py`) is a list of these. Routes, access, the checks of parameters and
the OpenAPI document come from it. Knows nothing of the web framework.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from runglass.errors import api_error

JSON = "application/json"

Access: TypeAlias = Literal["open", "read", "run", "admin"]
"""The least role that may ask; an endpoint that is open needs no key."""

ROLES: Mapping[Access, tuple[str, ...]] = {
    "read": ("read", "run", "admin"),
    "run": ("run", "admin"),
    "admin": ("admin",),
}

Schema: TypeAlias = Mapping[str, Any]
"""A JSON Schema."""


class Parameter(NamedTuple):
    """A parameter of the query, or a header, which is text."""

    name: str
    type: Any
    """What msgspec converts the text to."""
    description: str
    """What it must be, said to whoever sends something else."""
    default: Any = None
    argument: str = ""
    """The handler's name for it, where that is another one."""

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
    """How an object is found by what the path says of it. `find` raises the error of one that is missing."""

    find: Callable[..., Awaitable[Any]]
    path: tuple[str, ...]
    """The names in the path that `find` takes."""
    argument: str = ""
    """The handler's name for the object."""


class Answer(NamedTuple):
    """What is answered where nothing goes wrong."""

    shapes: tuple[Any, ...]
    """Types of the body, of which one is sent."""
    description: str
    status: int = 200
    media_type: str = JSON


class Endpoint(NamedTuple):
    """A method of a path. The docstring of its handler describes it."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    """Parts in braces are handed to the handler by their names."""
    handler: Callable[..., Awaitable[Any]]
    access: Access
    tag: str
    summary: str
    answer: Answer
    description: str = ""
    """In place of the handler's docstring."""
    body: Mapping[str, Schema] | None = None
    """Schemas of the body by media type."""
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    raw_headers: tuple[Parameter, ...] = ()
    """Headers that are read further in, by rules of their own; here they are only described."""
    finds: Lookup | None = None
    """Takes place before anything else, and its object is handed to the handler."""
    hides: Lookup | None = None
    """Takes place before a refusal for the role: a stranger must be told of no object that there is."""
    doing: str = ""
    """What a key whose role is too low may not do."""
    refuses_unknown: bool = False
    """Whether unknown parameters are refused: a filter that is ignored looks as if it worked."""
    is_lasting: bool = False
    """Whether the answer may take as long as a run."""

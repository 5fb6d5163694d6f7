"""The description of the interface: an OpenAPI 3.1 document, and a page to read it with.

The framework derives the document from the handlers. Here is what it cannot know: the body that a handler
reads by hand, and the one shape of all errors. The page is ours because those that the framework brings load
their parts from the internet, which a server behind a firewall cannot do.
"""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from litestar.connection import Request
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.openapi.spec.enums import OpenAPIType

import runglass
from runglass.errors import CODES
from runglass.server.answers import JSON
from runglass.server.request_schemas import EXECUTE_REQUEST, STEP_REQUEST

TEXT = Schema(type=OpenAPIType.STRING)
OBJECT = Schema(type=OpenAPIType.OBJECT)

ERROR = Schema(
    type=OpenAPIType.OBJECT,
    required=["detail"],
    properties={
        "detail": Schema(
            type=OpenAPIType.OBJECT,
            required=["code", "message"],
            properties={
                "code": Schema(type=OpenAPIType.STRING, enum=list(CODES)),
                "message": Schema(type=OpenAPIType.STRING, description="One clear sentence."),
                "executionId": TEXT,
                "stepId": TEXT,
            },
        )
    },
)


@dataclass
class ReadingOperation(Operation):
    """An operation that needs a key and may answer with an error."""

    def __post_init__(self) -> None:
        responses = dict(self.responses or {})
        # The framework documents an error body of its own, which no caller ever sees.
        responses.pop("400", None)
        self.responses = {**responses, "default": Reference("#/components/responses/Error")}


@dataclass
class ExecuteOperation(ReadingOperation):
    """An operation with the body of a call that runs a flow."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.request_body = RequestBody({JSON: OpenAPIMediaType(EXECUTE_REQUEST)}, required=True)


@dataclass
class StepOperation(ReadingOperation):
    """An operation with the body of a step-through."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.request_body = RequestBody({JSON: OpenAPIMediaType(STEP_REQUEST)}, required=True)


@dataclass
class OpenOperation(ReadingOperation):
    """An operation that needs no key."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.security = [{}]


class Page(OpenAPIRenderPlugin):
    """One static page that fetches the document and lays it out; nothing comes from elsewhere."""

    def __init__(self) -> None:
        super().__init__(path="/")
        self._page = (files(__package__) / "docs.html").read_bytes()

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return self._page


def openapi_config() -> OpenAPIConfig:
    """The page at `/docs` and the document at `/docs/openapi.json`."""
    return OpenAPIConfig(
        title="Runglass",
        version=runglass.__version__,
        description="Runs LLM flows and shows every run from the inside. Query parameters are taken in"
        " camelCase and in snake_case; unknown ones are ignored, except those that look like a slip.",
        path="/docs",
        render_plugins=[Page(), JsonRenderPlugin()],
        use_handler_docstrings=True,
        security=[{"key": []}],
        components=Components(
            security_schemes={
                "key": SecurityScheme(type="http", scheme="bearer", description="An API key, `nk_…`.")
            },
            responses={"Error": OpenAPIResponse("An error.", content={JSON: OpenAPIMediaType(ERROR)})},
        ),
    )

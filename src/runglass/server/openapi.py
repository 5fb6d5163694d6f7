"""The description of the API: an OpenAPI 3.1 document made from the table of endpoints, and a page of it.

The page is ours because those that others make load their parts from the internet, which a server behind a
firewall cannot do.
"""

import hashlib
import inspect
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from starlette.responses import Response

import runglass
from runglass.errors import CODES
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Endpoint, Parameter, Schema
from runglass.server.endpoints import ENDPOINTS
from runglass.server.viewer.assets import PAGE_HEADERS

OPENAPI = "application/vnd.oai.openapi+json"
REFERENCE = "#/components/schemas/{name}"
TEXT = {"type": "string"}

ERROR = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "enum": list(CODES)},
                "message": {"type": "string", "description": "One clear sentence."},
                "executionId": TEXT,
                "stepId": TEXT,
            },
        }
    },
}

IN_PATH = re.compile(r"\{(\w+)(?::(\w+))?\}")


@cache
def _document() -> bytes:
    """The OpenAPI document of the endpoints, as JSON."""
    shapes = list({str(shape): shape for each in ENDPOINTS for shape in each.answer.shapes}.values())
    schemas, components = msgspec.json.schema_components(shapes, ref_template=REFERENCE)
    schema_of = {str(shape): schema for shape, schema in zip(shapes, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        path = IN_PATH.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schema_of)
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "Runglass",
            "version": runglass.__version__,
            "description": "Runs LLM flows and shows every run from the inside. Query parameters are taken in"
            " camelCase and in snake_case; unknown ones are ignored, except those that look like a slip.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, `nk_…`."}
            },
            "responses": {"Error": {"description": "An error.", "content": {JSON: {"schema": ERROR}}}},
        },
    }
    return msgspec.json.encode(made)


def _operation(endpoint: Endpoint, schema_of: Mapping[str, Schema]) -> dict[str, Any]:
    answer = endpoint.answer
    answered = [schema_of[str(shape)] for shape in answer.shapes]
    # Not `oneOf`: where no field of either is required, an answer may satisfy both.
    schema = answered[0] if len(answered) == 1 else {"anyOf": answered}
    content = {answer.media_type: {"schema": schema}} | {each: {"schema": TEXT} for each in answer.also}
    parameters = [
        *(_in_path(name, kind) for name, kind in IN_PATH.findall(endpoint.path)),
        *(_parameter(each, "query") for each in endpoint.query),
        *(_parameter(each, "header") for each in (*endpoint.headers, *endpoint.raw_headers)),
    ]
    words = re.findall(r"[a-z0-9]+", IN_PATH.sub(r"\1", endpoint.path))
    operation: dict[str, Any] = {
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "description": endpoint.description or inspect.getdoc(endpoint.handler),
        "operationId": endpoint.method.lower() + "".join(word.title() for word in words),
        "responses": {
            str(answer.status): {
                "description": answer.description,
                **({"content": content} if answered else {}),
            },
            **{str(status): {"description": text} for status, text in answer.beside.items()},
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        bodies = {media_type: {"schema": body} for media_type, body in endpoint.body.items()}
        operation["requestBody"] = {"content": bodies, "required": True}
    if endpoint.access == "open":
        operation["security"] = [{}]
    return operation


def _in_path(name: str, kind: str) -> dict[str, Any]:
    schema = {"type": "integer"} if kind == "number" else TEXT
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _parameter(parameter: Parameter, where: str) -> dict[str, Any]:
    schema = msgspec.json.schema(parameter.type)
    if parameter.default is not None:
        schema = {**schema, "default": parameter.default}
    about = {"name": parameter.name, "in": where, "required": False}
    return {**about, "description": parameter.description, "schema": schema}


@cache
def _page() -> tuple[bytes, dict[str, str]]:
    """The page and its headers, which name its script and its style by their hashes."""
    content = (files(__package__) / "docs.html").read_bytes()
    policy = PAGE_HEADERS["content-security-policy"]
    for part in "script", "style":
        inside = content.partition(f"<{part}>".encode())[2].partition(f"</{part}>".encode())[0]
        digest = b64encode(hashlib.sha256(inside).digest()).decode()
        policy = policy.replace(f"{part}-src 'self'", f"{part}-src 'sha256-{digest}'")
    return content, {**PAGE_HEADERS, "content-security-policy": policy}


async def description(request: ApiRequest) -> Response:
    return Response(_document(), media_type=OPENAPI)


async def page(request: ApiRequest) -> Response:
    content, headers = _page()
    return Response(content, media_type="text/html", headers=headers)

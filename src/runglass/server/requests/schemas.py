"""JSON Schemas of the bodies of requests, for the description of the API.

They are written by hand: the structs of the bodies do not declare the fields of turns and attachments, and
the rules for those are code.
"""

from collections.abc import Sequence
from typing import Any, get_args

from runglass.server.endpoint import JSON, Schema
from runglass.server.requests.attachments import MAX_ATTACHMENTS, MAX_FILENAME, MAX_URL, MIME_TYPES
from runglass.server.requests.messages import MAX_MESSAGES_BYTES, ROLES
from runglass.server.requests.tools import MAX_TOOLS
from runglass.wire.admin_api import Role

TEXT = {"type": "string"}
OBJECT = {"type": "object"}

NAMES = (
    "Field names are taken in snake_case too. Unknown fields are ignored, except those that look like a slip"
    " and those that change what another call runs."
)

TOOL_CALL: dict[str, Any] = {
    "type": "object",
    "required": ["id", "function"],
    "properties": {
        "id": TEXT,
        "type": {"type": "string", "enum": ["function"]},
        "function": {
            "type": "object",
            "required": ["name", "arguments"],
            "properties": {"name": TEXT, "arguments": {"type": "string", "description": "JSON text."}},
        },
    },
}

MESSAGE: dict[str, Any] = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"type": "string", "enum": list(ROLES)},
        "content": {
            "description": "Text, or a list of parts `{type: text, text}` and, of a user, `{type: image_url,"
            " image_url: {url}}`; of a tool any value. An assistant with `toolCalls` needs none."
        },
        "toolCalls": {"type": "array", "items": TOOL_CALL},
        "toolCallId": {"type": "string", "description": "The call that a tool's turn answers."},
        "name": TEXT,
    },
}

ATTACHMENT: dict[str, Any] = {
    "type": "object",
    "required": ["url", "mimeType"],
    "properties": {
        "kind": {"type": "string", "enum": ["url"]},
        "url": {"type": "string", "pattern": "^https://", "maxLength": MAX_URL},
        "mimeType": {"type": "string", "enum": list(MIME_TYPES)},
        "filename": {"type": "string", "maxLength": MAX_FILENAME},
    },
}

RUN_PROPERTIES: dict[str, Schema] = {
    "message": {"type": "string", "description": "The input `message`."},
    "messages": {
        "type": "array",
        "items": MESSAGE,
        "description": f"A conversation instead of `message`, up to {MAX_MESSAGES_BYTES:,} bytes: the last"
        " turn is the user's and its text is the input `message`.",
    },
    "parameters": {"type": "object", "description": "The further inputs of the run."},
    "blockOverrides": {
        "type": "object",
        "additionalProperties": OBJECT,
        "description": "Fields of leaf steps, set for this run: `{stepId: {field: value}}`. A field replaces"
        " the step's whole value; `settings.NAME` sets one of its `settings` and leaves the others.",
    },
    "attachments": {
        "type": "array",
        "items": ATTACHMENT,
        "maxItems": MAX_ATTACHMENTS,
        "description": "Images that the flow's first llm step is shown.",
    },
    "trace": {"type": "boolean", "description": "Whether to capture full snapshots."},
}
"""The fields of every call that runs a flow."""

TOOL: dict[str, Any] = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"type": "string", "enum": ["function"]},
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
                "description": TEXT,
                "parameters": OBJECT,
            },
        },
    },
}

TOOL_PROPERTIES: dict[str, Schema] = RUN_PROPERTIES | {
    "tools": {
        "type": "array",
        "items": TOOL,
        "maxItems": MAX_TOOLS,
        "description": "Tools that the flow's top-level llm steps are offered, as OpenAI functions.",
    },
    "toolChoice": {"description": "auto, none, required or one function, or its bare name."},
    "executionId": {"type": "string", "description": "The paused run to take up again."},
    "iterationsUsed": {"type": "integer", "description": "As it came with the pause."},
    "toolCallMessages": {
        "type": "array",
        "items": OBJECT,
        "description": "As they came with the pause, and behind them the results: `{role: tool, toolCallId,"
        " content}` or `{toolCallId, output}`.",
    },
    "accumulatedOutputs": {
        "type": "object",
        "description": "Outputs by step id that stand over what the run has kept.",
    },
}
"""The fields of calls that may offer tools and resume a run."""

PAUSED_AT: dict[str, Schema] = {
    "pausedAtStep": {"description": "The step at which the run waits, as it came with the pause."}
}

STEP_PROPERTIES: dict[str, Schema] = {
    "stepIndex": {"type": "integer", "minimum": 0, "description": "The top-level step to run."},
    "inputOverrides": {
        "type": "object",
        "description": "An object under the id of a step: fields that stand over that step's input, whenever"
        " it runs. Other members are fields that stand over the input of the first step of this call.",
    },
    "runRemaining": {"type": "boolean", "description": "Whether to run to the end."},
}

RERUN_PROPERTIES: dict[str, Schema] = {
    "version": {
        "description": "`same`, `production` or a version's number, 0 for the draft.",
        "anyOf": [{"enum": ["same", "production"]}, {"type": "integer", "minimum": 0}],
        "default": "same",
    },
    "blockOverrides": RUN_PROPERTIES["blockOverrides"],
}


def _call_body(properties: dict[str, Schema]) -> dict[str, Schema]:
    fields = {"type": "object", "additionalProperties": True, "description": NAMES, "properties": properties}
    return {JSON: fields}


def _managing_body(properties: dict[str, Schema], *, required: Sequence[str] = ()) -> dict[str, Schema]:
    needs = {"required": list(required)} if required else {}
    return {JSON: {"type": "object", **needs, "properties": properties, "additionalProperties": True}}


EXECUTE_BODY = _call_body(TOOL_PROPERTIES | PAUSED_AT)
STEP_BODY = _call_body(TOOL_PROPERTIES | STEP_PROPERTIES)
JOB_BODY = _call_body(RUN_PROPERTIES)
RERUN_BODY = _call_body(RERUN_PROPERTIES)

FLOW_BODY: dict[str, Schema] = {
    JSON: {
        "type": "object",
        "required": ["slug", "steps"],
        "description": "A flow, in the shape of `/api/v1/schemas/flow.json`.",
    },
    "application/yaml": {"type": "string", "description": "A flow file; read as YAML whatever its type."},
}
RUN_FILE_BODY: dict[str, Schema] = {
    JSON: {
        "type": "object",
        "required": ["format", "events"],
        "description": "A run as `GET …/export` writes it, as `json`.",
    },
    "application/jsonl": {
        "type": "string",
        "description": "The same as `jsonl`; what it is shows by itself.",
    },
}
OTLP_BODY: dict[str, Schema] = {
    "application/x-protobuf": {
        "type": "string",
        "format": "binary",
        "description": "The export request of OTLP; so is a body without a Content-Type.",
    },
    JSON: {"type": "object", "description": "The same as OTLP/JSON."},
}
PRODUCTION_BODY = _managing_body(
    {"version": {"type": "integer", "minimum": 1, "description": "A published version."}},
    required=["version"],
)
KEY_BODY = _managing_body({"role": {"type": "string", "enum": list(get_args(Role))}}, required=["role"])
TICKET_BODY = _managing_body(
    {"page": {"type": "string", "description": "A path of the viewer, such as `/runs/ID`."}}
)

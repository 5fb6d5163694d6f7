"""What the bodies that start a run look like, for the description of the interface.

Written by hand: the structs that are decoded into leave open what a turn or an attachment is made of, and the
rules for those are code.
"""

from litestar.openapi.spec import Reference, Schema
from litestar.openapi.spec.enums import OpenAPIType

from runglass.server.attachments import MAX_ATTACHMENTS, MAX_FILENAME, MAX_URL, MIME_TYPES
from runglass.server.tools import MAX_TOOLS
from runglass.server.turns import MAX_MESSAGES_BYTES, ROLES

TEXT = Schema(type=OpenAPIType.STRING)
OBJECT = Schema(type=OpenAPIType.OBJECT)

NAMES = (
    "Field names are taken in snake_case too. Unknown fields are ignored, except those that look like a slip"
    " and those that change what another call runs."
)

TOOL_CALL = Schema(
    type=OpenAPIType.OBJECT,
    required=["id", "function"],
    properties={
        "id": TEXT,
        "type": Schema(type=OpenAPIType.STRING, enum=["function"]),
        "function": Schema(
            type=OpenAPIType.OBJECT,
            required=["name", "arguments"],
            properties={"name": TEXT, "arguments": Schema(type=OpenAPIType.STRING, description="JSON text.")},
        ),
    },
)

MESSAGE = Schema(
    type=OpenAPIType.OBJECT,
    required=["role"],
    properties={
        "role": Schema(type=OpenAPIType.STRING, enum=list(ROLES)),
        "content": Schema(
            description="Text, or a list of parts `{type: text, text}` and, of a user, `{type: image_url,"
            " image_url: {url}}`; of a tool any value. An assistant with `toolCalls` needs none."
        ),
        "toolCalls": Schema(type=OpenAPIType.ARRAY, items=TOOL_CALL),
        "toolCallId": Schema(type=OpenAPIType.STRING, description="The call that a tool's turn answers."),
        "name": TEXT,
    },
)

ATTACHMENT = Schema(
    type=OpenAPIType.OBJECT,
    required=["url", "mimeType"],
    properties={
        "kind": Schema(type=OpenAPIType.STRING, enum=["url"]),
        "url": Schema(type=OpenAPIType.STRING, pattern="^https://", max_length=MAX_URL),
        "mimeType": Schema(type=OpenAPIType.STRING, enum=list(MIME_TYPES)),
        "filename": Schema(type=OpenAPIType.STRING, max_length=MAX_FILENAME),
    },
)

RUN_PROPERTIES: dict[str, Schema | Reference] = {
    "message": Schema(type=OpenAPIType.STRING, description="The input `message`."),
    "messages": Schema(
        type=OpenAPIType.ARRAY,
        items=MESSAGE,
        description=f"A conversation instead of `message`, up to {MAX_MESSAGES_BYTES:,} bytes: the last turn"
        " is the user's and its text is the input `message`.",
    ),
    "parameters": Schema(type=OpenAPIType.OBJECT, description="The further inputs of the run."),
    "blockOverrides": Schema(
        type=OpenAPIType.OBJECT,
        additional_properties=OBJECT,
        description="Fields of leaf steps, set for this run: `{stepId: {field: value}}`.",
    ),
    "attachments": Schema(
        type=OpenAPIType.ARRAY,
        items=ATTACHMENT,
        max_items=MAX_ATTACHMENTS,
        description="Images that the flow's first llm step is shown.",
    ),
    "trace": Schema(type=OpenAPIType.BOOLEAN, description="Whether to capture full snapshots."),
}
"""The fields that every way of running a flow takes."""

JOB_REQUEST = Schema(
    type=OpenAPIType.OBJECT,
    additional_properties=True,
    description=NAMES,
    properties=RUN_PROPERTIES,
)

TOOL = Schema(
    type=OpenAPIType.OBJECT,
    required=["type", "function"],
    properties={
        "type": Schema(type=OpenAPIType.STRING, enum=["function"]),
        "function": Schema(
            type=OpenAPIType.OBJECT,
            required=["name"],
            properties={
                "name": Schema(type=OpenAPIType.STRING, pattern="^[A-Za-z0-9_-]{1,64}$"),
                "description": TEXT,
                "parameters": OBJECT,
            },
        ),
    },
)

TOOL_PROPERTIES: dict[str, Schema | Reference] = RUN_PROPERTIES | {
    "tools": Schema(
        type=OpenAPIType.ARRAY,
        items=TOOL,
        max_items=MAX_TOOLS,
        description="Tools that the flow's top-level llm steps are offered, in the OpenAI function format.",
    ),
    "toolChoice": Schema(description="auto, none, required or one function, or its bare name."),
    "executionId": Schema(type=OpenAPIType.STRING, description="The paused run to take up again."),
    "iterationsUsed": Schema(type=OpenAPIType.INTEGER, description="As it came with the pause."),
    "toolCallMessages": Schema(
        type=OpenAPIType.ARRAY,
        items=OBJECT,
        description="As they came with the pause, and behind them the results: `{role: tool, toolCallId,"
        " content}` or `{toolCallId, output}`.",
    ),
    "accumulatedOutputs": Schema(
        type=OpenAPIType.OBJECT, description="Outputs by step id that stand over what the run has kept."
    ),
}
"""The fields of calls that may offer tools and take a run up again."""

EXECUTE_REQUEST = Schema(
    type=OpenAPIType.OBJECT,
    additional_properties=True,
    description=NAMES,
    properties=TOOL_PROPERTIES
    | {"pausedAtStep": Schema(description="The step at which the run waits, as it came with the pause.")},
)

STEP_REQUEST = Schema(
    type=OpenAPIType.OBJECT,
    additional_properties=True,
    description=NAMES,
    properties=TOOL_PROPERTIES
    | {
        "stepIndex": Schema(type=OpenAPIType.INTEGER, minimum=0, description="The top-level step to run."),
        "inputOverrides": Schema(
            type=OpenAPIType.OBJECT,
            description="An object under the id of a step: fields that stand over that step's input, whenever"
            " it runs. Other members are fields that stand over the input of the first step of this call.",
        ),
        "runRemaining": Schema(type=OpenAPIType.BOOLEAN, description="Whether to run to the end."),
    },
)

"""Runglass's messages, tools and settings in the words of pydantic-ai, and its tool calls back in ours.

Pure translation: no provider, no network. Imports pydantic-ai, so only `provider_requests.py` may import it.
"""

import json
import re
from typing import Any, Literal, cast

import msgspec
from pydantic_ai.messages import (
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings, ToolChoice
from pydantic_ai.tools import ToolDefinition

from runglass.engine.models import model_types
from runglass.engine.models.model_types import call_id_of, calls_in, text_of
from runglass.engine.models.request_parser import as_given
from runglass.errors import StepFailure
from runglass.flows.models import CommonSettings
from runglass.support.safe_text import replace_surrogates

OutputForm = Literal["native", "json_object", "prompted", "auto"]
"""How an object is asked for: OpenAI's way, llama.cpp's way, in words, or as pydantic-ai deems best."""

ANSWER_TOOL = "runglass_answer"
"""The tool in whose arguments a model writes its object, where it can be held to a schema in no other way."""


def model_settings(settings: dict[str, Any], *, provider: str) -> ModelSettings:
    """`settings` as pydantic-ai takes them.

    A provider's own settings pass under their pydantic-ai names (`openai_…` for `openai:`), any other
    field of a request in `extra_body`. An unknown name is refused, lest a misspelt `temperature` be silently
    ignored.
    """
    families = {"openai", *re.split(r"[-/]", provider)}
    common: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in settings.items():
        is_own = name not in CommonSettings.__struct_fields__ and name.partition("_")[0] in families
        (own if is_own else common)[name] = value
    try:
        checked = msgspec.to_builtins(msgspec.convert(common, CommonSettings))
    except msgspec.ValidationError as error:
        known = ", ".join(CommonSettings.__struct_fields__)
        raise StepFailure(
            "INVALID_INPUT",
            f"`settings` of model provider {provider!r}: {error}; known are {known}",
            may_retry=False,
        ) from error
    # How the answer is fetched is our own affair, not a field of the request.
    checked.pop("stream", None)
    stop = checked.pop("stop", None)
    if stop is not None:
        checked["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    return cast(ModelSettings, checked | own)


def parameters(request: model_types.ModelRequest, form: OutputForm) -> ModelRequestParameters:
    """The tools of a request, and its `output_schema` to be asked for in `form`."""
    tools = _tool_definitions(request.tools)
    if request.output_schema is None:
        return ModelRequestParameters(function_tools=tools)
    schema = _object_schema(request.output_schema)
    answer = ToolDefinition(
        name=ANSWER_TOOL, description="Give the answer", parameters_json_schema=schema, kind="output"
    )
    return ModelRequestParameters(
        function_tools=tools,
        output_mode="prompted" if form == "json_object" else form,
        output_object=OutputObjectDefinition(json_schema=schema, name="answer"),
        output_tools=[answer],
    )


def as_prepared(request: model_types.ModelRequest, prepared: ModelRequestParameters) -> dict[str, Any]:
    """`ModelCall.request` as far as pydantic-ai tells: for libraries whose requests cannot be seen."""
    instructions = [text for text in (request.system, prepared.prompted_output_instructions) if text]
    tools = [
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters_json_schema,
            "strict": tool.strict,
        }
        for tool in (*prepared.function_tools, *prepared.output_tools)
    ]
    answer = prepared.output_object if prepared.output_mode == "native" else None
    sent = msgspec.structs.replace(
        request,
        system="\n\n".join(instructions) or None,
        tools=[{"type": "function", "function": tool} for tool in tools],
        output_schema=None if answer is None else answer.json_schema,
    )
    return as_given(sent)


def with_form(settings: ModelSettings, request: model_types.ModelRequest, form: OutputForm) -> ModelSettings:
    """`settings`, with the fields that `form` needs beside the parameters."""
    if request.output_schema is None or form != "json_object":
        return settings
    response_format = {"type": "json_object", "schema": _object_schema(request.output_schema)}
    extra = cast(dict[str, Any], settings.get("extra_body", {}))
    return {**settings, "extra_body": {"response_format": response_format, **extra}}


def model_messages(messages: list[dict[str, Any]], *, system: str | None) -> list[ModelMessage]:
    """The conversation as pydantic-ai takes it; user text and tool results in a row form one request."""
    conversation: list[ModelMessage] = []
    tool_names: dict[str, str] = {}
    for message in messages:
        if message.get("role") == "assistant":
            said = _assistant_parts(message)
            tool_names |= {
                part.tool_call_id: part.tool_name for part in said if isinstance(part, ToolCallPart)
            }
            if said:
                conversation.append(ModelResponse(parts=said))
            continue
        part = _request_part(message, tool_names)
        last = conversation[-1] if conversation else None
        if isinstance(last, ModelRequest):
            last.parts = [*last.parts, part]
        else:
            conversation.append(ModelRequest(parts=[part]))
    asked = [message for message in conversation if isinstance(message, ModelRequest)]
    if not asked:
        raise StepFailure("INVALID_INPUT", "the conversation has no user message to answer", may_retry=False)
    asked[-1].instructions = system
    return conversation


def tool_choice(choice: Any) -> ToolChoice:
    """`toolChoice` of the wire (auto, none, required or one function) as pydantic-ai takes it."""
    if isinstance(choice, dict):
        return [choice["function"]["name"]]
    if choice in ("auto", "none", "required", None):
        return cast(ToolChoice, choice)
    raise StepFailure(
        "INVALID_INPUT", f"tool choice {choice!r} is none of auto, none, required", may_retry=False
    )


def wire_call(part: ToolCallPart) -> dict[str, Any]:
    """A tool call of the model in the OpenAI format."""
    return {
        "id": replace_surrogates(part.tool_call_id),
        "type": "function",
        "function": {"name": replace_surrogates(part.tool_name), "arguments": arguments_of(part)},
    }


def arguments_of(part: ToolCallPart) -> str:
    """The arguments as the model wrote them, be they JSON or not."""
    if isinstance(part.args, str) and part.args:
        return replace_surrogates(part.args)
    return replace_surrogates(json.dumps(part.args or {}, ensure_ascii=False, separators=(",", ":")))


def _tool_definitions(tools: list[dict[str, Any]]) -> list[ToolDefinition]:
    functions = [tool["function"] for tool in tools]
    return [
        ToolDefinition(
            name=function["name"],
            description=function.get("description"),
            parameters_json_schema=function.get("parameters") or {"type": "object", "properties": {}},
            strict=function.get("strict"),
        )
        for function in functions
    ]


def _object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    # Outputs are objects, and providers insist that the schema says so.
    return {"type": "object"} | schema


def _assistant_parts(message: dict[str, Any]) -> list[ModelResponsePart]:
    text = text_of(message)
    parts: list[ModelResponsePart] = [TextPart(content=text)] if text else []
    for call in calls_in(message):
        function = call["function"]
        parts.append(
            ToolCallPart(tool_name=function["name"], args=function["arguments"], tool_call_id=call["id"])
        )
    return parts


def _request_part(message: dict[str, Any], tool_names: dict[str, str]) -> ModelRequestPart:
    role = message.get("role")
    if role == "user":
        images = [
            ImageUrl(url=image["url"], media_type=image.get("mimeType"))
            for image in message.get("attachments") or []
        ]
        return UserPromptPart(content=[text_of(message), *images] if images else text_of(message))
    call_id = call_id_of(message)
    if role == "tool" and call_id is not None:
        name = tool_names.get(call_id) or message.get("name") or "tool"
        return ToolReturnPart(tool_name=name, content=text_of(message), tool_call_id=call_id)
    raise StepFailure(
        "INVALID_INPUT",
        f"a message of role {role!r} cannot stand here: use user, assistant, or tool with `toolCallId`",
        may_retry=False,
    )

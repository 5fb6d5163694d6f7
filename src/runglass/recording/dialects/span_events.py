"""Messages that come as events of a span, in the way of the conventions up to 1.36, and all details in one.

`gen_ai.user.message`, `gen_ai.choice` and their like have the message in their attributes, or, as log
records, in their body; `gen_ai.client.inference.operation.details` has what newer spans have as attributes.
"""

from typing import Any

from runglass.recording.dialects.attributes import Attributes
from runglass.recording.dialects.messages import Message, messages_of
from runglass.recording.dialects.readers import decoded
from runglass.recording.received import SpanEvent

ROLES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
CHOICE = "gen_ai.choice"
DETAILS = frozenset(
    {"gen_ai.client.inference.operation.details", "gen_ai.content.prompt", "gen_ai.content.completion"}
)


class MessageEvents:
    """The messages in the events of one span; details are added to its `attributes`.

    What is not popped was not used: `unused` has the events that said it.
    """

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._sent: list[SpanEvent] = []
        self._received: list[SpanEvent] = []

    def take(self, event: SpanEvent) -> bool:
        """Takes an event; False for one that is none of these."""
        if event.name in DETAILS:
            self._attributes.add(event.attributes)
        elif event.name in ROLES:
            self._sent.append(event)
        elif event.name == CHOICE:
            self._received.append(event)
        else:
            return False
        self._attributes.is_gen_ai = True
        return True

    def pop_sent(self) -> list[Message]:
        """The messages that were sent, by their roles."""
        events, self._sent = self._sent, []
        return [
            message
            for event in events
            for message in sent_message(ROLES[event.name], _shaped(event.attributes))
        ]

    def pop_received(self) -> list[Any]:
        """The choices that came, each with its `finish_reason`."""
        events, self._received = self._received, []
        return [choice(_shaped(event.attributes)) for event in events]

    def pop_tool_input(self) -> list[Any]:
        """What Strands sends of a tool's input: the content of a message of the tool."""
        events, self._sent = self._sent, [event for event in self._sent if ROLES[event.name] != "tool"]
        return [_shaped(event.attributes).get("content") for event in events if ROLES[event.name] == "tool"]

    @property
    def unused(self) -> list[SpanEvent]:
        return [*self._sent, *self._received]


def _shaped(sent: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an event without the emitter's name, and with objects in place of JSON texts."""
    shaped = {}
    for key, value in sent.items():
        if key in ("gen_ai.system", "gen_ai.provider.name", "event.name"):
            continue
        if type(value) is str and key in ("content", "message", "tool_calls") and value[:1] in ("[", "{"):
            found = decoded(value)
            value = value if found is None else found
        shaped[key] = value
    return shaped


def sent_message(role: str, body: Any) -> list[Message]:
    """The message of an event or a log record; the id of a tool's answer is there without a prefix."""
    if not isinstance(body, dict):
        return [{"role": role} if body is None else {"role": role, "content": body}]
    if role == "tool" and "id" in body:
        body = {"tool_call_id" if name == "id" else name: value for name, value in body.items()}
    return messages_of([{"role": role} | body])


def choice(body: Any) -> Any:
    """A choice as a message with its `finish_reason`."""
    if not isinstance(body, dict):
        return body
    body = {name: value for name, value in body.items() if name != "index" or value}
    message = body.pop("message", None)
    if isinstance(message, dict):
        return message | body
    return body if message is None else {"role": "assistant", "content": message} | body

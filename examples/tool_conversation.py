"""A model that reads a book page by page, with tools that this program offers.

Needs a running server and an admin key of a project, in RUNGLASS_BASE_URL and RUNGLASS_API_KEY. The model is
`echo`, which is offline and honest about being no model: it asks for each tool once, then says the question.
"""

from typing import Any

from runglass import Client, StepResumed
from runglass.client.api.admin import Management

FLOW = """
slug: tool-conversation
inputs:
  type: object
  properties: {message: {type: string}}
  required: [message]
steps:
  - id: answer
    type: llm
    model: echo
    settings: {parallel_tool_calls: false}
"""

BOOK = ["The ferry was late.", "It came in at a quarter past nine.", "Nobody on the pier looked up."]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"read_page_{number}",
            "description": f"The text of page {number}.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
    for number in range(1, len(BOOK) + 1)
]


def read(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Answers one tool call; what it returns goes to the model as JSON."""
    number = int(name.removeprefix("read_page_"))
    print(f"the model reads page {number}")
    return {"page": number, "text": BOOK[number - 1]}


def main() -> None:
    with Client() as client:
        management = Management(client)
        home = management.own_flows()
        management.push(home.org, home.project, "tool-conversation", FLOW)
        management.publish(home.org, home.project, "tool-conversation")
        flow = client.flow(org=home.org, project=home.project, slug="tool-conversation")

        question = "When did the ferry come?"
        first = flow.execute(message=question, tools=TOOLS, tool_handler=read, trace=True)
        assert first.result is not None
        print(f"answer: {first.result['text']}")

        # The next turn brings the conversation so far; this time without tools.
        turns = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": first.result["text"]},
            {"role": "user", "content": "Who looked up?"},
        ]
        second = flow.execute(messages=turns)
        assert second.result is not None
        print(f"answer: {second.result['text']}")

        # One run, however often it waited; its events show each turn of the model.
        rounds = [
            event.input_data
            for event in flow.run(first.execution_id).live_trace()
            if isinstance(event, StepResumed)
        ]
        print(f"the first run waited {len(rounds)} times for tools")


if __name__ == "__main__":
    main()

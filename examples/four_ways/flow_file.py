"""The agent as a flow, which the server executes; only the tool is called here.

Needs a Runglass server in RUNGLASS_BASE_URL, an admin key in RUNGLASS_API_KEY, and a model's name in MODEL.
The server's setting `providers` has the address of the model server as `local`.
"""

import os
import sys
from pathlib import Path

from runglass import Client
from runglass.client.api.admin import Management

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather in a city today.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": WEATHER}]


def weather(name, arguments):
    return {"Oslo": "rain", "Lima": "sun"}.get(arguments["city"], "fog")


def answer(question):
    with Client() as client:
        management = Management(client)
        home = management.own_flows()
        text = Path(__file__).with_name("flow.yaml").read_text("utf-8")
        management.push(home.org, home.project, "four-ways-flow", text)
        management.publish(home.org, home.project, "four-ways-flow")
        flow = client.flow(org=home.org, project=home.project, slug="four-ways-flow")
        model = {"answer": {"model": f"local:{os.environ['MODEL']}"}}
        done = flow.execute(message=question, tools=TOOLS, tool_handler=weather, block_overrides=model)
        return done.result["text"]


if __name__ == "__main__":
    print(answer(sys.argv[1]))

"""An agent without tracing: it looks up notes, asks a model that has a tool, and retries after an error.

Needs a model server in OPENAI_BASE_URL and OPENAI_API_KEY, and the name of its model in MODEL.
"""

import json
import os
import sys
import time

import openai

NOTES = ["The ferry to Lima leaves at nine.", "Museums in Oslo close on Mondays.", "Bread needs an hour."]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather in a city today.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": WEATHER}]
MODEL = os.environ["MODEL"]
client = openai.OpenAI(max_retries=0)


def retrieve(question):
    words = set(question.lower().split())
    return sorted(NOTES, key=lambda note: len(words & set(note.lower().split())), reverse=True)[:2]


def weather(city):
    return {"Oslo": "rain", "Lima": "sun"}.get(city, "fog")


def ask(messages):
    for pause_s in (0.1, 0.2, None):
        try:
            return client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        except openai.APIError:
            if pause_s is None:
                raise
            time.sleep(pause_s)


def answer(question):
    system = "Answer in one sentence. What is known: " + " ".join(retrieve(question))
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    for _ in range(5):
        message = ask(messages).choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message)
        for call in message.tool_calls:
            result = weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError("the model keeps asking for tools")


if __name__ == "__main__":
    print(answer(sys.argv[1]))

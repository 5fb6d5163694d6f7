"""What a model was given and what it gave back, where an emitter sends each as one value."""

from typing import Any

from runglass.recording.dialects.messages import Message, messages_of, system_of, tools_of

_MARKS = {"role", "content", "parts", "lc"}


def asked(value: Any) -> tuple[list[Message], dict[str, Any]]:
    """The messages in what a model was given, and the rest of it as `ModelCall.request` has it."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}], {}
    if isinstance(value, list):
        return (messages_of(value), {}) if _are_messages(value) else ([], {})
    if not isinstance(value, dict):
        return [], {}
    more = dict(value)
    if isinstance(contents := more.get("contents"), list):
        # Google's: the settings are in `config`, instructions and tools among them.
        del more["contents"]
        config = more.pop("config", None)
        more |= config if isinstance(config, dict) else {}
        system = more.pop("system_instruction", None)
        request = {"system": system["parts"] if isinstance(system, dict) and "parts" in system else system}
        request["tools"] = more.pop("tools", None)
    elif isinstance(contents := more.get("messages"), list) and _are_messages(contents):
        del more["messages"]
        request = {"system": more.pop("system", None), "tools": more.pop("tools", None)}
    else:
        return [], {}
    if request["system"] is not None:
        request["system"] = system_of(request["system"])
    if isinstance(request["tools"], list):
        request["tools"] = tools_of(request["tools"])
    return messages_of(contents), request | {"settings": more}


def answered(value: Any) -> tuple[list[Any], dict[str, Any]]:
    """The answers in what a model gave back, and the rest of that."""
    if isinstance(value, str):
        return [value], {}
    if isinstance(value, list):
        return (value, {}) if _are_messages(value) else ([], {})
    if not isinstance(value, dict):
        return [], {}
    more = dict(value)
    for name in ("choices", "generations"):
        if isinstance(answers := more.get(name), list) and answers:
            del more[name]
            if isinstance(answers[0], list):
                # LangChain, for each prompt of a batch; there is one.
                more |= {name: answers[1:]} if len(answers) > 1 else {}
                answers = answers[0]
            return answers, more
    if isinstance(content := more.get("content"), dict) and "parts" in content:
        del more["content"]
        return [content], more
    return ([value], {}) if {"role", "content"} <= more.keys() else ([], {})


def _are_messages(value: list[Any]) -> bool:
    return bool(value) and all(
        _are_messages(each)
        if isinstance(each, list)
        else isinstance(each, dict) and not _MARKS.isdisjoint(each)
        for each in value
    )

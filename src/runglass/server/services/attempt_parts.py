"""An attempt without what of it is large: as much as a page shows before anybody asks for the rest."""

import msgspec

PARTS = {"inputContext": "input", "outputContext": "output", "errorContext": "error"}
CALLS = "modelCalls"
SAID = ("request", "response")
"""What of a model call is content."""


def without_large_parts(data: bytes, most_bytes: int) -> bytes:
    """A StepTrace in JSON; parts of more bytes are left out, and `leftOut` says how many each takes.

    Of model calls what was sent and what came back is left out together. Raises msgspec.DecodeError.
    """
    if len(data) <= most_bytes:
        return data
    members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    sizes = {name: len(bytes(raw)) for name, raw in members.items()}
    left = {part: sizes[name] for name, part in PARTS.items() if sizes.get(name, 0) > most_bytes}
    for name, part in PARTS.items():
        if part in left:
            del members[name]
    if sizes.get(CALLS, 0) > most_bytes:
        left[CALLS] = sizes[CALLS]
        members[CALLS] = msgspec.Raw(_without_said(bytes(members[CALLS])))
    if not left:
        return data
    return msgspec.json.encode(members | {"leftOut": left})


def _without_said(calls: bytes) -> bytes:
    told = msgspec.json.decode(calls, type=list[dict[str, msgspec.Raw]])
    return msgspec.json.encode(
        [{name: raw for name, raw in call.items() if name not in SAID} for call in told]
    )

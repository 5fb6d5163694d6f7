"""What a recorded run keeps of the content of its spans, by the capture mode of the run.

Done before two states of a span become one: of the same content always the same is kept, so what comes twice
adds nothing.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from runglass.engine.capture.capture import Capture
from runglass.engine.payload import Payload
from runglass.log.span_state import SpanState
from runglass.log.trace import ModelCall
from runglass.support.lazy_json import json_bytes

CONTENT = ("input", "output", "attributes", "events", "links", "error")
_NAMES, _NAMES_OF_CALL = ("name", "entry_name"), ("finish_reason", "request_id", "error_code")


async def captured(state: SpanState, capture: Capture) -> SpanState:
    """The state with that of its content which the mode keeps: without secrets, and cut where it is large.

    Names lose their secrets; ids, times and numbers stay. The sizes of input and output are those before.
    """
    kept: dict[str, Any] = {}
    truncated = state.truncated
    for name in CONTENT[:-1]:
        kept[name], is_cut = await _kept(json_bytes(state, name), capture)
        truncated = truncated or is_cut
    kept["resource"], _ = await _kept(json_bytes(state, "resource"), capture)
    if state.error is not None:
        error = dict(state.error)
        if isinstance(code := error.get("code"), str):
            error["code"] = await capture.text(code)
        if not capture.keeps_snapshots:
            # It has lines of the program.
            error.pop("traceback", None)
        kept["error"] = await capture.error_of(error, [])
    if state.model_calls:
        call, is_cut = await _call(state.model_calls[0], capture)
        kept["model_calls"] = (call,)
        truncated = truncated or is_cut
    kept |= await _names(state, _NAMES, capture)
    for name in ("tags", "notes"):
        if texts := getattr(state, name):
            kept[name] = tuple(sorted({await capture.text(text) for text in texts}))
    if capture.mode == "off":
        kept |= {"input_size_bytes": None, "output_size_bytes": None}
    return replace(state, **kept, truncated=truncated)


def captured_at_once(state: SpanState, capture: Capture, resources: dict[bytes, Any]) -> SpanState:
    """The same, of a state that is small, where nothing has to be waited for.

    `resources` has what is kept of each, which spans share, by its JSON; a new one is put in.
    """
    told: Any = json_bytes(state, "resource")
    resource = bytes(told or b"")
    try:
        captured(replace(state, resource=None) if resource in resources else state, capture).send(None)
    except StopIteration as done:
        kept: SpanState = done.value
        return replace(kept, resource=resources.setdefault(resource, json_bytes(kept, "resource")))
    raise AssertionError("it is large")


async def _call(call: ModelCall, capture: Capture) -> tuple[ModelCall, bool]:
    request, is_cut = await _kept(json_bytes(call, "request"), capture)
    response, is_also_cut = await _kept(json_bytes(call, "response"), capture)
    is_cut = is_cut or is_also_cut
    names = await _names(call, _NAMES_OF_CALL, capture)
    truncated = call.truncated or is_cut
    return replace(call, request=request, response=response, truncated=truncated, **names), is_cut


async def _names(
    owner: SpanState | ModelCall, fields: Sequence[str], capture: Capture
) -> dict[str, str | None]:
    names = {field: getattr(owner, field) for field in fields}
    return {field: name and await capture.text(name) for field, name in names.items()}


async def _kept(value: Any, capture: Capture) -> tuple[Any, bool]:
    """What is kept of one JSON value, an object or a list, and whether it was cut."""
    if value is None or not capture.keeps_snapshots:
        return None, False
    data = bytes(value)
    is_list = data.startswith(b"[")
    payload = Payload.encoded(b'{"items":%b}' % data if is_list else data)
    await capture.prepare(payload)
    snapshot = capture.snapshot(payload)
    kept = snapshot.data
    if is_list and kept is not None:
        kept = msgspec.json.decode(kept, type=dict[str, msgspec.Raw]).get("items")
        if kept is not None and not bytes(kept).startswith(b"["):
            # Cut to a text that says how many there were.
            kept = msgspec.Raw(b"[%b]" % kept)
    return kept, snapshot.truncated

"""The Python that writes a result as JSON inside the sandbox, ahead of the code of a step.

A result that JSON cannot hold is written as a zero byte, its place, another zero byte and the reason.
"""

from runglass.engine.sandbox.code_transform import WRITER

RESULT_WRITER = f"""
from json import dumps as {WRITER}_json

def {WRITER}(
    value, dumps={WRITER}_json, isinstance=isinstance, enumerate=enumerate, repr=repr, str=str, dict=dict,
    list=list, tuple=tuple, TypeError=TypeError, ValueError=ValueError,
):
    text, reason = "", ""
    try:
        text = dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        reason = str(error)
        if reason.startswith("Circular"):
            return "\\0\\0" + reason
    pending = [(value, None)]
    while pending:
        value, path = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    reason = "the key " + repr(key) + " is not a string"
                    break
                if reason or isinstance(inner, (dict, list, tuple)):
                    pending.append((inner, (path, "." + key)))
            else:
                continue
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                if reason or isinstance(inner, (dict, list, tuple)):
                    pending.append((inner, (path, "[" + str(index) + "]")))
            continue
        else:
            try:
                dumps(value, allow_nan=False)
                continue
            except (TypeError, ValueError) as error:
                reason = str(error)
        place = ""
        while path is not None:
            path, step = path
            place = step[:100] + place
        return "\\0" + place + "\\0" + reason
    return "\\0\\0" + reason if reason else text
"""
# All dicts are looked through, also where `dumps` was content: it turns other keys into strings.
RESULT_LINES = RESULT_WRITER.count("\n")
RESULT_USES = {"isinstance", "enumerate", "repr", "str", "dict", "list", "tuple", "TypeError", "ValueError"}
"""Names of Python that the writer needs, and that a field of an input may hide."""

"""Whether the outputs that a flow's templates, code and expressions ask for can be there: `steps["id"]`.

The order of steps is plain from the tree: a list from top to bottom, one branch of a condition, all branches
of a parallel part at once, and nothing inside a loop is seen once that is over. A reference that can never be
met is a mistake; a reference that is met on some ways through the flow gets a warning, unless the text tests
first whether the output is there. A reference that only a run could judge is left alone. An id that stands
alone, as a name, gets a warning, unless some step may have a field of that name, and so does an input of the
run where a step gets the output of one before it that surely lacks it. Works on plain data, which may be
malformed anywhere.
"""

import builtins
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from runglass.flows.diagnostics import Finding, Path
from runglass.flows.flow import MAX_STEPS
from runglass.flows.syntax import parts_of, syntaxes
from runglass.flows.text_references import INITIAL, STEPS, Reference, name_references, references_of
from runglass.support.safe_text import suggestion

MAX_SUGGESTIONS = 20
"""The most suggestions per flow: looking for the nearest of ten thousand ids takes some milliseconds."""

_LISTS = ("steps", "then", "else")


class _Step(NamedTuple):
    """A step, and the way to it: each container around it, with the list and the position in that list."""

    id: str
    kind: str
    slots: tuple["_Slot", ...]


class _Slot(NamedTuple):
    container: _Step | None
    branch: str
    position: int


def unmet_references(flow: Any) -> Iterator[Finding]:
    """A mistake or a warning for each reference to a step's output that is not, or may not be, there."""
    if isinstance(flow, dict):
        yield from _FlowTexts(flow).findings()


class _FlowTexts:
    """The texts of a flow, with all its steps known before."""

    def __init__(self, flow: dict[str, Any]) -> None:
        self._flow = flow
        self._steps: dict[str, _Step] = {}
        self._texts: list[tuple[_Step, dict[str, Any], Path]] = []
        self._before: dict[Path, dict[str, Any]] = {}
        self._suggestions: dict[str, str] = {}
        schema = flow.get("inputs")
        properties = schema.get("properties") if isinstance(schema, dict) else None
        self._declared: dict[Any, Any] = properties if isinstance(properties, dict) else {}
        """The inputs of the run that the flow declares."""
        self._collect(flow.get("steps"), ("steps",), None, "steps", ())

    def findings(self) -> Iterator[Finding]:
        fields = {
            name for data in (self._flow, *(data for _, data, _ in self._texts)) for name in _fields(data)
        }
        # A field called `steps` hides the outputs by step id.
        for step, data, path in self._texts if STEPS not in fields else ():
            for reference, text_path in references_of(data, path):
                found = self._judged(reference, step)
                if found is not None:
                    message, is_warning = found
                    line, column = reference.line, reference.column
                    yield Finding(message, text_path, line=line, column=column, is_warning=is_warning)
        sought = self._steps.keys() - fields - _NAMES
        for _, data, path in self._texts:
            for name, text_path in name_references(data, path, sought):
                output = f"steps.{name.name}" if name.written == "template" else f'steps["{name.name}"]'
                message = (
                    f"no step hands on a field {name.name!r}, as far as is known here; the output of step "
                    f"{name.name!r} is {output}"
                )
                yield Finding(message, text_path, line=name.line, column=name.column, is_warning=True)
        yield from self._lost_inputs()
        if self._texts and INITIAL not in fields:
            yield from self._unknown_inputs()

    def _lost_inputs(self) -> Iterator[Finding]:
        inputs = {name for name in self._declared if isinstance(name, str)}
        variables = {name for _, data, _ in self._texts if isinstance(name := data.get("as"), str)}
        inputs -= _NAMES | variables | self._steps.keys()
        for _, data, path in self._texts if inputs else ():
            before = self._before.get(path)
            handed_on = None if before is None or "input" in data else _handed_on(before)
            if before is None or handed_on is None:
                continue
            for name, text_path in name_references(data, path, inputs - handed_on):
                has = ", ".join(f"`{field}`" for field in sorted(handed_on)[:MAX_SUGGESTIONS]) or "nothing"
                whole = f"initial.{name.name}" if name.written == "template" else f'initial["{name.name}"]'
                message = (
                    f"{name.name!r} is an input of the run, but this step gets the output of step"
                    f" {before.get('id')!r}, which has {has}; the run's input is {whole}"
                )
                yield Finding(message, text_path, line=name.line, column=name.column, is_warning=True)

    def _unknown_inputs(self) -> Iterator[Finding]:
        """A warning for each input that `inputs` lacks, where that is a slip as far as is known here."""
        schema = self._flow.get("inputs")
        if not isinstance(schema, dict) or not self._declared:
            return
        declared = [name for name in self._declared if isinstance(name, str)]
        is_closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
        compared = 0
        for name, text_path, line, column in self._named_inputs():
            if name in self._declared:
                continue
            hint = suggestion(name, declared) if compared < MAX_SUGGESTIONS else ""
            compared += 1
            if hint or is_closed:
                message = f"`inputs` declares no {name!r}{hint}"
                yield Finding(message, text_path, line=line, column=column, is_warning=True)

    def _named_inputs(self) -> Iterator[tuple[str, Path, int | None, int]]:
        """The inputs of the run that texts name: in `initial`, and in the first step also alone."""
        for _, data, path in self._texts:
            for reference, text_path in references_of(data, path, INITIAL):
                if not reference.asked and not reference.as_field:
                    yield reference.key, text_path, reference.line, reference.column
        _, first, path = self._texts[0]
        if "input" not in first:
            known = _NAMES | self._steps.keys() | set(dir(builtins))
            for name, text_path in name_references(first, path):
                if name.name not in known:
                    yield name.name, text_path, name.line, name.column

    def _collect(
        self, steps: Any, path: Path, container: _Step | None, branch: str, slots: tuple[_Slot, ...]
    ) -> None:
        for index, data in enumerate(steps if isinstance(steps, list) else ()):
            if len(self._texts) >= MAX_STEPS:
                return
            if not isinstance(data, dict):
                continue
            step_id, kind = data.get("id"), data.get("type")
            step = _Step(str(step_id), str(kind), (*slots, _Slot(container, branch, index)))
            if isinstance(step_id, str):
                self._steps.setdefault(step_id, step)
            self._texts.append((step, data, (*path, index)))
            if index > 0 and isinstance(steps[index - 1], dict):
                self._before[(*path, index)] = steps[index - 1]
            for name in _LISTS:
                self._collect(data.get(name), (*path, index, name), step, name, step.slots)
            branches = data.get("branches")
            for name, inner in branches.items() if isinstance(branches, dict) else ():
                self._collect(inner, (*path, index, "branches", name), step, name, step.slots)

    def _judged(self, reference: Reference, step: _Step) -> tuple[str, bool] | None:
        target = self._steps.get(reference.key)
        if target is None:
            return (
                f"the flow has no step {reference.key!r}{self._hint(reference.key)}",
                reference.asked,
            )
        if reference.as_field:
            name = reference.key
            return f'`steps` is an object: write steps["{name}"], not steps.{name}', reference.asked
        never = _why_never_there(target, step)
        if never is not None:
            return never, reference.asked
        sometimes = None if reference.asked or reference.depends else _why_not_always_there(target, step)
        return None if sometimes is None else (sometimes, True)

    def _hint(self, name: str) -> str:
        if name not in self._suggestions and len(self._suggestions) < MAX_SUGGESTIONS:
            dashed = next((known for known in self._steps if known.startswith(f"{name}-")), None)
            hint = suggestion(name, list(self._steps))
            # `steps.a-b` is a subtraction.
            self._suggestions[name] = hint if dashed is None else f'; did you mean steps["{dashed}"]?'
        return self._suggestions.get(name, "")


def _shared_slots(target: _Step, step: _Step) -> int:
    """How many turns the ways to the two steps have in common."""
    same = 0
    for a, b in zip(target.slots, step.slots, strict=False):
        # Steps share the objects of their slots; comparing them for equality would go all the way up.
        if a is not b:
            break
        same += 1
    return same


def _why_never_there(target: _Step, step: _Step) -> str | None:
    """The reason why the output of `target` is never there for `step`, or for its own expression."""
    name, at = target.id, _shared_slots(target, step)
    if at == len(target.slots):
        if target is step:
            return f"step {name!r} cannot see its own output"
        return f"{target.kind} {name!r} is not over for the steps inside it, so its output is not there yet"
    if at == len(step.slots):
        return f"step {name!r} is inside {step.id!r} and runs later; its output is not there yet"
    there, here = target.slots[at], step.slots[at]
    if there.branch == here.branch and there.position > here.position:
        return f"step {name!r} comes later; its output is not there yet"
    if there.branch != here.branch and there.container is not None and there.container.kind == "condition":
        return f"step {name!r} is in the other branch of condition {there.container.id!r}"
    for slot in target.slots[at + 1 :]:
        if slot.container is not None and slot.container.kind == "loop":
            return (
                f"step {name!r} is inside loop {slot.container.id!r}, and its output is not seen outside; "
                f'use steps["{slot.container.id}"]["items"]'
            )
    return None


def _why_not_always_there(target: _Step, step: _Step) -> str | None:
    """The reason why the output of `target` may be missing for `step`."""
    name, at = target.id, _shared_slots(target, step)
    there, here = target.slots[at], step.slots[at]
    if there.branch != here.branch:
        container = "" if there.container is None else f" of {there.container.id!r}"
        return (
            f"step {name!r} runs in another branch{container} at the same time; its output may not be there"
        )
    for slot in target.slots[at + 1 :]:
        if slot.container is not None and slot.container.kind == "condition":
            return f"step {name!r} runs only where condition {slot.container.id!r} takes its branch"
    return None


_NAMES = frozenset({STEPS, INITIAL, "attempt", "item", "index"})
_FIELD_IN_CODE = re.compile(r"""["'](\w+)["']|\b(\w+)\s*=""")


def _handed_on(step: dict[str, Any]) -> set[str] | None:
    """The fields of a step's output; None where only a run could tell."""
    match step:
        case {"type": "llm"} if "output_schema" not in step:
            return {"text"}
        case {"type": "loop"}:
            return {"items"}
        case {"type": "parallel", "branches": dict(branches)}:
            return {name for name in branches if isinstance(name, str)}
    return None


def _fields(step: dict[str, Any]) -> Iterator[str]:
    """The names of the fields that a step, or the flow, may get or hand on, as far as they are written."""
    written = [(syntax, step.get(name)) for name, syntax in syntaxes(step.get("type")).items()]
    for syntax, value in (*written, ("templates", step.get("branches")), ("schema", step.get("inputs"))):
        if syntax == "variable" and isinstance(value, str):
            yield value
        if syntax == "templates" and isinstance(value, dict):
            yield from (name for name in value if isinstance(name, str))
        if syntax == "code" and isinstance(value, str):
            yield from (quoted or assigned for quoted, assigned in _FIELD_IN_CODE.findall(value))
        for part, _ in parts_of(value, ()) if syntax == "schema" else ():
            properties = part.get("properties") if isinstance(part, dict) else None
            if isinstance(properties, dict):
                yield from (name for name in properties if isinstance(name, str))

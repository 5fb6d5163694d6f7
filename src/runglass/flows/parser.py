"""From a flow file to a flow: every mistake in it with its position, and warnings.

A step is judged by the schema of its own type, so that the message is about the mistake and not the union.
The rules work on plain data and answer with findings; what a step has to be follows from `flows/flow.py`.
"""

import functools
from collections.abc import Callable, Container, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec
from jsonschema_rs import ValidationErrorKind as Kind

from runglass.config.settings import USUAL
from runglass.errors import FlowFileError, Problem
from runglass.flows.diagnostics import Finding, Path, shown
from runglass.flows.flow import MAX_STEPS, OVERRIDABLE, Flow, Syntax, flow_schema
from runglass.flows.models import model_findings, package_warnings, setting_findings
from runglass.flows.references import unmet_references
from runglass.flows.schemas.keywords import idle_keywords
from runglass.flows.schemas.schema import (
    Schema,
    any_of,
    compile_schema,
    expected,
    explain,
    findings_in,
)
from runglass.flows.syntax import (
    findings_within,
    loop_name_findings,
    parts_of,
    python_findings,
    syntaxes,
    template_findings,
)
from runglass.support.safe_text import suggestion

MAX_NESTING = 32
MAX_IDLE_KEYWORDS = 1_000
MAX_PROBLEMS = 1_000

_META = {"$ref": "https://json-schema.org/draft/2020-12/schema"}


def _json_schema(schema: Any, path: Path, *, limit_bytes: int) -> Iterator[Finding]:
    """Mistakes in a schema for objects: all that the meta-schema finds, or the first of compiling it."""
    if not isinstance(schema, dict):
        return
    size_bytes = len(msgspec.json.encode(schema))
    if size_bytes > limit_bytes:
        message = f"the schema has {size_bytes:,} bytes as JSON; the limit is {limit_bytes:,}"
        yield Finding(f"{message} (setting schema_limit_bytes)", path)
        return
    found = []
    if "$schema" not in schema:
        found = list(findings_in(schema, _META))
    if not found:
        try:
            compile_schema(schema)
        except jsonschema_rs.ValidationError as error:
            found = [_broken_reference(schema, error) or finding for finding in explain(error)]
        except ValueError as error:
            found = [Finding(str(error), ())]
    for finding in dict.fromkeys(found):
        message = f"not a valid JSON Schema: {finding.message}"
        yield finding._replace(message=message, path=path + finding.path)
    types = schema.get("type")
    if not found and types is not None and "object" not in ([types] if isinstance(types, str) else types):
        yield Finding("the schema must allow objects; inputs and outputs are always objects", (*path, "type"))


def _broken_reference(schema: Schema, error: jsonschema_rs.ValidationError) -> Finding | None:
    """The finding for a `$ref` that leads nowhere; the library tells its target and not its path."""
    if not isinstance(error.kind, Kind.Referencing):
        return None
    for part, path in parts_of(schema, ()):
        reference = part.get("$ref") if isinstance(part, dict) else None
        if isinstance(reference, str) and reference.lstrip("#") in error.message:
            message = f"nothing is at {shown(reference)}; only references inside the schema are followed"
            return Finding(message, (*path, "$ref"))
    return None


class FlowRules:
    """The rules that a flow file has to keep: the schema of flow files taken apart by step type, and more."""

    def __init__(self, schema_limit_bytes: int) -> None:
        self._judge_schema = functools.partial(_json_schema, limit_bytes=schema_limit_bytes)
        self._judges: dict[Syntax, Callable[[Any, Path], Iterator[Finding]]] = {
            "template": template_findings,
            "templates": findings_within,
            "code": functools.partial(python_findings, what="the code", mode="exec"),
            "expression": functools.partial(python_findings, what="the expression", mode="eval"),
            "variable": loop_name_findings,
            "model": model_findings,
            "schema": self._judge_schema,
        }
        schema = flow_schema()
        definitions = {name: _without_items(definition) for name, definition in schema["$defs"].items()}
        self._schemas: dict[str, Schema] = {}
        self.fields: dict[str, set[str]] = {}
        for name, definition in definitions.items():
            members = definition["properties"]
            kind = members["type"]["enum"][0] if "type" in members else name
            self._schemas[kind] = {"$ref": f"#/$defs/{name}", "$defs": definitions}
            if "type" in members:
                self.fields[kind] = set(members)
        self._validators = {kind: compile_schema(schema) for kind, schema in self._schemas.items()}

    def flow(self, data: Any, *, own_providers: Container[str] = ()) -> Iterator[Finding]:
        """Every mistake in a flow, step by step, and warnings.

        Models of `own_providers` are those of an OpenAI-compatible server, whatever the names are.
        """
        yield from self._shape("Flow", data, ())
        if isinstance(data, dict):
            yield from self._judge_schema(data.get("inputs"), ("inputs",))
            names = data.get("overridable")
            for index, name in enumerate(names if isinstance(names, list) else ()):
                if name not in OVERRIDABLE:
                    hint = suggestion(name, OVERRIDABLE) or f"; it may be {any_of(list(OVERRIDABLE))}"
                    message = f"no step has a field {shown(name)} to override{hint}"
                    yield Finding(message, ("overridable", index))
            tree = _TreeFindings(self, own_providers)
            yield from tree.keywords(data.get("inputs"), ("inputs",))
            yield from tree.steps(data.get("steps"), ("steps",), 1)

    def step(self, step: Any, path: Path) -> Iterator[Finding]:
        """Every mistake in one step, the steps inside it left out."""
        if not isinstance(step, dict):
            yield Finding(expected(["object"], step), path)
            return
        kind, types = step.get("type"), list(self.fields)
        if not isinstance(kind, str) or kind not in self.fields:
            message = f"expected {any_of(types)}, found {shown(kind)}{suggestion(kind, types)}"
            if "type" not in step:
                message = f"`type` is missing; a step is {any_of(types)}"
            yield Finding(message, (*path, "type"))
            return
        yield from self._shape(kind, step, path)
        known = syntaxes(kind)
        for name in step:
            if name in known:
                yield from self._judges[known[name]](step[name], (*path, name))
        if kind == "llm":
            yield from setting_findings(step, path)

    def _shape(self, kind: str, value: Any, path: Path) -> Iterator[Finding]:
        for error in self._validators[kind].iter_errors(value):
            for finding in explain(error, self._schemas[kind]):
                yield finding._replace(path=path + finding.path)


@functools.lru_cache(maxsize=4)
def flow_rules(schema_limit_bytes: int) -> FlowRules:
    """The rules, with this limit for each schema in a flow."""
    return FlowRules(schema_limit_bytes)


def _without_items(part: Any) -> Any:
    """The schema of one level: every list in a flow is a list of steps, and steps are judged one by one."""
    if isinstance(part, dict):
        return {key: _without_items(value) for key, value in part.items() if key != "items"}
    return [_without_items(value) for value in part] if isinstance(part, list) else part


class _TreeFindings:
    """Mistakes that depend on the whole tree of steps, of one pass over it."""

    def __init__(self, rules: FlowRules, own_providers: Container[str]) -> None:
        self._rules = rules
        self._own_providers = own_providers
        self._idle_keywords = 0
        self._ids: dict[str, Path] = {}
        self._count = 0

    def steps(self, steps: Any, path: Path, nesting: int) -> Iterator[Finding]:
        if not isinstance(steps, list):
            return
        if nesting > MAX_NESTING:
            yield Finding(f"steps are nested deeper than {MAX_NESTING} levels", path)
            return
        for index, step in enumerate(steps):
            self._count += 1
            if self._count == MAX_STEPS + 1:
                yield Finding(f"the flow has more than {MAX_STEPS:,} steps", (*path, index))
            if self._count > MAX_STEPS:
                return
            yield from self._rules.step(step, (*path, index))
            if not isinstance(step, dict):
                continue
            step_id, at = step.get("id"), (*path, index, "id")
            if isinstance(step_id, str) and self._ids.setdefault(step_id, at) is not at:
                yield Finding(f"the id {step_id!r} is used twice", at, earlier=self._ids[step_id])
            if "output_schema" in step:
                yield from self.keywords(step["output_schema"], (*path, index, "output_schema"))
            if str(step.get("model")).partition(":")[0] not in self._own_providers:
                yield from package_warnings(step, (*path, index))
            kind, inside = step.get("type"), (*path, index)
            fields = self._rules.fields.get(kind, set()) if isinstance(kind, str) else set()
            for name in ("steps", "then", "else"):
                if name in step and name in fields:
                    yield from self.steps(step[name], (*inside, name), nesting + 1)
            if "branches" in fields and isinstance(step.get("branches"), dict):
                for branch, inner in step["branches"].items():
                    yield from self.steps(inner, (*inside, "branches", branch), nesting + 1)

    def keywords(self, schema: Any, path: Path) -> Iterator[Finding]:
        """Warnings about a schema, up to a number, as looking for the nearest keyword takes a while."""
        for finding in islice(idle_keywords(schema, path), MAX_IDLE_KEYWORDS - self._idle_keywords):
            self._idle_keywords += 1
            yield finding


class CheckedFlow(NamedTuple):
    """A flow, and warnings for its author."""

    flow: Flow
    warnings: list[Problem]


def parse_flow(text: str | bytes, *, file: str = "<flow>") -> Flow:
    """The flow in a YAML or JSON text. Raises FlowFileError with every mistake and its position.

    From the thousandth mistake on they are no longer listed. `file` is only a name for messages.
    """
    return check_flow(text, file=file).flow


def check_flow(
    text: str | bytes,
    *,
    file: str = "<flow>",
    own_providers: Container[str] = (),
    limit_characters: int = USUAL.flow_limit_bytes,
    schema_limit_bytes: int = USUAL.schema_limit_bytes,
) -> CheckedFlow:
    """The flow and the warnings about it, at most a thousand; otherwise like `parse_flow`.

    `own_providers` are names of OpenAI-compatible servers: models of theirs need no package.
    """
    # Imported here, so that a server to which no flow is pushed does not hold a reader of YAML.
    from runglass.flows.file import read_document

    document = read_document(text, file=file, limit_characters=limit_characters)
    problems = document.problems[:MAX_PROBLEMS]
    warnings: list[Problem] = []
    for finding in chain(
        flow_rules(schema_limit_bytes).flow(document.value, own_providers=own_providers),
        unmet_references(document.value),
    ):
        if len(problems) >= MAX_PROBLEMS:
            problems.append(Problem(f"there may be more; only {MAX_PROBLEMS:,} problems are listed"))
            break
        if finding.path in document.problem_paths:
            continue
        if not finding.is_warning:
            problems.append(document.problem(finding))
        elif len(warnings) < MAX_PROBLEMS:
            warnings.append(document.problem(finding))
    warnings.sort(key=_appearance)
    if problems:
        raise FlowFileError(sorted(problems, key=_appearance), file=file, warnings=warnings)
    # Not strict, so that 3.0 is an integer, as it is to JSON Schema; nothing else is left to coerce.
    return CheckedFlow(msgspec.convert(document.value, Flow, strict=False), warnings)


def _appearance(problem: Problem) -> tuple[bool, int, int]:
    return problem.line is None, problem.line or 0, problem.column or 0

"""Whether data is a flow: the shape of each step, and the syntax of the texts inside it.

A step is judged by the schema of its own type, so that a mistake is named and not just its union. This file
works on plain data and answers with findings. It must not know the structs of `flow.py`, whose JSON Schema it
is given, nor the file that the data came from.
"""

import ast
import functools
import importlib.util
import keyword
import re
import threading
import warnings
from collections.abc import Callable, Container, Iterator
from itertools import islice
from typing import Any, Literal

import jsonschema_rs
import minijinja
import msgspec
from jsonschema_rs import ValidationErrorKind as Kind

from runglass.diagnostics import Finding, Path, shown
from runglass.schema_keywords import idle_keywords
from runglass.schemas import Schema, any_of, compile_schema, errors_in, expected, explain, suggestion

MAX_STEPS = 10_000
MAX_NESTING = 32
MAX_TAG_TOKENS = 500
MAX_ELIFS = 100
MAX_IDLE_KEYWORDS = 1_000
SCHEMA_LIMIT_BYTES = 256 * 1024
RESERVED_NAMES = ("attempt", "index", "initial", "steps")
OFFLINE_MODEL = "echo"

OVERRIDABLE = (
    "prompt",
    "system",
    "input",
    "settings",
    "output_schema",
    "model",
    "tools",
    "code",
    "ms",
    "retry",
    "timeout_ms",
    "on_error",
)
"""The fields of leaf steps that a call may set anew."""

SETTINGS = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "stop_sequences",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "parallel_tool_calls",
    "stream",
    "thinking",
    "service_tier",
    "extra_headers",
    "extra_body",
)
"""Names in a step's `settings`: those of `pydantic_ai.settings.ModelSettings`, without the ones that are the
engine's to set; `stop`, as the OpenAI API calls `stop_sequences`; and `stream`, which the engine obeys."""

SETTING_FAMILIES = frozenset(
    {
        "anthropic",
        "bedrock",
        "cerebras",
        "google",
        "groq",
        "mistral",
        "openai",
        "openrouter",
        "snowflake",
        "typesafe",
        "xai",
        "zai",
    }
)
"""Providers with settings of their own, `openai_…`, in the modules of `pydantic_ai.models`."""

PROVIDER_PACKAGES: dict[str, str] = {
    "anthropic": "anthropic",
    "bedrock": "boto3",
    "cohere": "cohere",
    "google": "google.genai",
    "google-cloud": "google.genai",
    "google-decisions": "google.genai",
    "groq": "groq",
    "huggingface": "huggingface_hub",
    "mistral": "mistralai",
    "typesafe": "typesafe_sdk",
    "voyageai": "voyageai",
    "xai": "xai_sdk",
}
"""Providers for which pydantic-ai needs a package of their own, and the module that it imports of it."""

_parsing = threading.Lock()


def parse_python(text: str, mode: Literal["exec", "eval"]) -> ast.AST:
    """The syntax tree of a flow's code. Raises what `ast.parse` raises."""
    # What Python warns of in somebody's flow is no warning of ours; catch_warnings is not thread-safe.
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode=mode)


def _python(text: Any, path: Path, *, what: str, mode: Literal["exec", "eval"]) -> Iterator[Finding]:
    if not isinstance(text, str) or not text:
        return
    try:
        tree = parse_python(text, mode)
    except SyntaxError as error:
        line, column = error.lineno and max(error.lineno, 1), max(error.offset or 1, 1)
        yield Finding(f"{what} is not valid Python: {error.msg}", path, line=line, column=column)
    except (ValueError, MemoryError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        yield Finding(f"{what} is not valid Python: {reason}", path)
    else:
        if isinstance(tree, ast.Module) and not tree.body:
            yield Finding(f"{what} is empty; it must return an object", path)


_OPENING = re.compile(r"\{[{%#]")
_RAW = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}(?s:.*?)(?:\{%[-+]?\s*endraw\s*[-+]?%\}|\Z)")
_ELIF = re.compile(r"\{%[-+]?\s*elif\b")
_CLOSING = {"{{": re.compile(r"[-+]?\}\}"), "{%": re.compile(r"[-+]?%\}")}
_TOKEN = re.compile(r"""\s+|"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|\w+|.""", re.DOTALL)


def overlong(source: str) -> int | None:
    """Where a template would take the process down: its parser recurses without a bound along one tag."""
    elifs = [match.start() for match in _ELIF.finditer(source)]
    if len(elifs) > MAX_ELIFS:
        return elifs[MAX_ELIFS]
    at = 0
    while opening := _OPENING.search(source, at):
        if opening[0] == "{#":
            end = source.find("#}", opening.end())
            at = len(source) if end < 0 else end + 2
        elif raw := _RAW.match(source, opening.start()):
            at = raw.end()
        else:
            at, tokens = _end_of_tag(source, opening.end(), _CLOSING[opening[0]])
            if tokens > MAX_TAG_TOKENS:
                return opening.start()
    return None


def _end_of_tag(source: str, at: int, closing: re.Pattern[str]) -> tuple[int, int]:
    open_brackets = tokens = 0
    while tokens <= MAX_TAG_TOKENS and (token := _TOKEN.match(source, at)):
        if open_brackets == 0 and (end := closing.match(source, at)):
            return end.end(), tokens
        at = token.end()
        tokens += not token[0].isspace()
        open_brackets += (token[0] in "([{") - (token[0] in ")]}")
    return at, tokens


def _template(text: Any, path: Path) -> Iterator[Finding]:
    if not isinstance(text, str):
        return
    at = overlong(text)
    message = f"the template has a tag of more than {MAX_TAG_TOKENS} parts, or more than {MAX_ELIFS} `elif`"
    if at is None:
        try:
            return minijinja.Environment().add_template("template", text)
        except minijinja.TemplateError as error:
            at = len(text.encode()[: error.range[0] if error.range else 0].decode(errors="ignore"))
            message = f"the template is malformed: {error.detail or error.message}"
    before = text[:at].split("\n")
    yield Finding(message, path, line=len(before), column=len(before[-1]) + 1)


def _templates_within(value: Any, path: Path) -> Iterator[Finding]:
    for part, place in parts_of(value, path):
        yield from _template(part, place)


def _loop_name(name: Any, path: Path) -> Iterator[Finding]:
    if not isinstance(name, str):
        return
    if not name.isidentifier() or keyword.iskeyword(name):
        yield Finding(f"{shown(name)} cannot be a name in Python", path)
    elif name in RESERVED_NAMES:
        yield Finding(f"{name!r} has a meaning of its own, like {any_of(list(RESERVED_NAMES))}", path)


_META = {"$ref": "https://json-schema.org/draft/2020-12/schema"}


def _json_schema(schema: Any, path: Path, *, limit_bytes: int = SCHEMA_LIMIT_BYTES) -> Iterator[Finding]:
    """Mistakes in a schema for objects: all that its own schema finds, or the first that compiling finds."""
    if not isinstance(schema, dict):
        return
    size_bytes = len(msgspec.json.encode(schema))
    if size_bytes > limit_bytes:
        message = f"the schema has {size_bytes:,} bytes as JSON; the limit is {limit_bytes:,}"
        yield Finding(f"{message} (setting schema_limit_bytes)", path)
        return
    found = []
    if "$schema" not in schema:
        found = [finding for error in errors_in(schema, _META) for finding in explain(error)]
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
    """The `$ref` that leads nowhere; the library tells its target and not its place."""
    if not isinstance(error.kind, Kind.Referencing):
        return None
    for part, path in parts_of(schema, ()):
        reference = part.get("$ref") if isinstance(part, dict) else None
        if isinstance(reference, str) and reference.lstrip("#") in error.message:
            message = f"nothing is at {shown(reference)}; only references inside the schema are followed"
            return Finding(message, (*path, "$ref"))
    return None


def parts_of(value: Any, path: Path) -> Iterator[tuple[Any, Path]]:
    """The value and all that it holds, in order. Without recursion: its depth is the author's choice."""
    pending = [(value, path)]
    while pending:
        value, path = pending.pop()
        yield value, path
        if isinstance(value, dict | list):
            members = value.items() if isinstance(value, dict) else enumerate(value)
            pending += reversed([(member, (*path, key)) for key, member in members])


def provider_missing(model: Any) -> str | None:
    """What is wrong with a model string that names no provider, or no model of it; None where nothing is.

    Nothing is with what is no string: that is a matter of the schema.
    """
    if not isinstance(model, str) or not model or model == OFFLINE_MODEL:
        return None
    provider, _, name = model.partition(":")
    if "://" in name:
        # Some packages take an address for a model, and send the provider's key there.
        return (
            f"model {shown(model)} is an address: a server's own is in its settings, under a provider's name"
        )
    if provider and name:
        return None
    return f"model {shown(model)} names no provider: write PROVIDER:MODEL, or `{OFFLINE_MODEL}` to try it out"


def _model(model: Any, path: Path) -> Iterator[Finding]:
    if problem := provider_missing(model):
        yield Finding(problem, path)


def _package(step: dict[str, Any], path: Path) -> Iterator[Finding]:
    """A warning where this machine could not ask the step's model; the one that runs the flow may."""
    model = step.get("model")
    if step.get("type") != "llm" or not isinstance(model, str):
        return
    provider = model.partition(":")[0].removeprefix("gateway/")
    module = PROVIDER_PACKAGES.get(provider)
    if module is not None and not _is_installed(module):
        extra = provider.partition("-")[0]
        message = (
            f"the package for models of {provider!r} is not installed on this machine; where the flow runs, "
            f'it needs: pip install "pydantic-ai-slim[{extra}]"'
        )
        yield Finding(message, (*path, "model"), is_warning=True)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        # Of a package that is not there, nothing inside can be looked for.
        return False


def _settings(step: dict[str, Any], path: Path) -> Iterator[Finding]:
    """Names in an llm step's `settings` that no model of its provider takes."""
    settings, model = step.get("settings"), step.get("model")
    if not isinstance(settings, dict):
        return
    families = SETTING_FAMILIES
    if isinstance(model, str) and model != OFFLINE_MODEL:
        # Any server may speak OpenAI's dialect, whatever its provider is called.
        families = frozenset({"openai", *re.split(r"[-/]", model.partition(":")[0])})
    for name in settings:
        family, _, own = str(name).partition("_")
        if name not in SETTINGS and not (own and family in families):
            hint = suggestion(name, list(SETTINGS)) or "; a provider's own fields go into `extra_body`"
            yield Finding(f"unknown setting {shown(name)}{hint}", (*path, "settings", name), at_key=True)


def _overridable(names: Any) -> Iterator[Finding]:
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if name not in OVERRIDABLE:
            hint = suggestion(name, list(OVERRIDABLE)) or f"; it may be {any_of(list(OVERRIDABLE))}"
            yield Finding(f"no step has a field {shown(name)} to set anew{hint}", ("overridable", index))


_expression = functools.partial(_python, what="the expression", mode="eval")

_TEXTS: dict[str, Callable[[Any, Path], Iterator[Finding]]] = {
    "as": _loop_name,
    "code": functools.partial(_python, what="the code", mode="exec"),
    "if": _expression,
    "input": _templates_within,
    "model": _model,
    "over": _expression,
    "prompt": _template,
    "system": _template,
}


class FlowRules:
    """The schema of flow files taken apart by step type."""

    def __init__(self, schema: Schema, *, schema_limit_bytes: int = SCHEMA_LIMIT_BYTES) -> None:
        self._judge_schema = functools.partial(_json_schema, limit_bytes=schema_limit_bytes)
        self._texts: dict[str, Callable[[Any, Path], Iterator[Finding]]] = {
            **_TEXTS,
            "output_schema": self._judge_schema,
        }
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
        """Every mistake in a flow, step by step, and what is worth a warning.

        Models of `own_providers` are those of an OpenAI-compatible server, whatever the names are.
        """
        yield from self._shape("Flow", data, ())
        if isinstance(data, dict):
            yield from self._judge_schema(data.get("inputs"), ("inputs",))
            yield from _overridable(data.get("overridable"))
            walk = _Walk(self, own_providers)
            yield from walk.keywords(data.get("inputs"), ("inputs",))
            yield from walk.steps(data.get("steps"), ("steps",), 1)

    def step(self, step: Any, path: Path) -> Iterator[Finding]:
        """Every mistake in one step, the steps inside it left out."""
        kind = step.get("type") if isinstance(step, dict) else None
        if not isinstance(kind, str) or kind not in self.fields:
            yield from self._unknown_type(step, path)
            return
        yield from self._shape(kind, step, path)
        for name in step:
            if name in self._texts and name in self.fields[kind]:
                yield from self._texts[name](step[name], (*path, name))
        if kind == "llm":
            yield from _settings(step, path)

    def _shape(self, kind: str, value: Any, path: Path) -> Iterator[Finding]:
        for error in self._validators[kind].iter_errors(value):
            for finding in explain(error, self._schemas[kind]):
                yield finding._replace(path=path + finding.path)

    def _unknown_type(self, step: Any, path: Path) -> Iterator[Finding]:
        types = list(self.fields)
        if not isinstance(step, dict):
            yield Finding(expected(["object"], step), path)
        elif "type" not in step:
            yield Finding(f"`type` is missing; a step is {any_of(types)}", (*path, "type"))
        else:
            kind = step["type"]
            message = f"expected {any_of(types)}, found {shown(kind)}{suggestion(kind, types)}"
            yield Finding(message, (*path, "type"))


def _without_items(part: Any) -> Any:
    """The schema of one level: every list in a flow is one of steps, and those are judged one by one."""
    if isinstance(part, dict):
        return {key: _without_items(value) for key, value in part.items() if key != "items"}
    return [_without_items(value) for value in part] if isinstance(part, list) else part


class _Walk:
    """One pass over a tree of steps: what only the whole tree can tell."""

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
            if isinstance(step, dict):
                yield from self._identity(step.get("id"), (*path, index, "id"))
                yield from self._warnings(step, (*path, index))
                yield from self._inside(step, (*path, index), nesting + 1)

    def _identity(self, step_id: Any, path: Path) -> Iterator[Finding]:
        if isinstance(step_id, str) and self._ids.setdefault(step_id, path) is not path:
            yield Finding(f"the id {step_id!r} is used twice", path, earlier=self._ids[step_id])

    def keywords(self, schema: Any, path: Path) -> Iterator[Finding]:
        """Warnings about a schema, up to a number: to look for the word that was meant takes a while."""
        for finding in islice(idle_keywords(schema, path), MAX_IDLE_KEYWORDS - self._idle_keywords):
            self._idle_keywords += 1
            yield finding

    def _warnings(self, step: dict[str, Any], path: Path) -> Iterator[Finding]:
        if "output_schema" in step:
            yield from self.keywords(step["output_schema"], (*path, "output_schema"))
        if str(step.get("model")).partition(":")[0] not in self._own_providers:
            yield from _package(step, path)

    def _inside(self, step: dict[str, Any], path: Path, nesting: int) -> Iterator[Finding]:
        kind = step.get("type")
        fields = self._rules.fields.get(kind, set()) if isinstance(kind, str) else set()
        for name in ("steps", "then", "else"):
            if name in step and name in fields:
                yield from self.steps(step[name], (*path, name), nesting)
        if "branches" in fields and isinstance(step.get("branches"), dict):
            for branch, steps in step["branches"].items():
                yield from self.steps(steps, (*path, "branches", branch), nesting)

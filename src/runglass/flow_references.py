"""Whether the outputs that a flow's templates, code and expressions ask for can be there: `steps["id"]`.

What runs when is plain from the tree: a list from top to bottom, one branch of a condition, all branches of a
parallel part at once, and nothing inside a loop is seen once that is over. A reference that can never be met
is a mistake; one that is met on some ways through the flow gets a warning, where nothing around it asks
first. What cannot be told without running the flow is left alone. Works on plain data, of which nothing has
to be right.
"""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import minijinja

from runglass.diagnostics import Finding, Path
from runglass.flow_validation import MAX_STEPS, overlong, parse_python, parts_of
from runglass.schemas import suggestion

MAX_SUGGESTIONS = 20
"""Looking for the nearest of ten thousand ids takes some milliseconds."""

_STEPS = "steps"
_LISTS = ("steps", "then", "else")
_METHODS = frozenset(name for name in dir(dict) if not name.startswith("_"))


class _Step(NamedTuple):
    """A step, and the way to it: each container around it, the list that it stands in there, and where."""

    id: str
    kind: str
    around: tuple["_Turn", ...]


class _Turn(NamedTuple):
    container: _Step | None
    branch: str
    position: int


class _Reference(NamedTuple):
    """A step's id in a text. `asked` is true where the text makes sure first that the output is there."""

    step_id: str
    line: int | None
    column: int = 1
    asked: bool = False
    depends: bool = False
    """Whether anything in the text is done on a condition."""
    as_field: bool = False
    """Whether it is written like a field, which objects in Python do not have."""


def unmet_references(flow: Any) -> Iterator[Finding]:
    """A mistake or a warning for each reference to a step's output that is not, or may not be, there."""
    if isinstance(flow, dict):
        yield from _Walk(flow).findings()


class _Walk:
    """One pass over a flow's texts, with all its steps known before."""

    def __init__(self, flow: dict[str, Any]) -> None:
        self._flow = flow
        self._steps: dict[str, _Step] = {}
        self._texts: list[tuple[_Step, dict[str, Any], Path]] = []
        self._suggestions: dict[str, str] = {}
        self._collect(flow.get("steps"), ("steps",), None, "steps", ())

    def findings(self) -> Iterator[Finding]:
        if _is_hiding(self._flow) or any(_is_hiding(data) for _, data, _ in self._texts):
            return
        for step, data, path in self._texts:
            for reference, place in _references_of(data, path):
                found = self._judged(reference, step)
                if found is not None:
                    message, is_warning = found
                    yield Finding(
                        message,
                        place,
                        line=reference.line,
                        column=reference.column,
                        is_warning=is_warning,
                    )

    def _collect(
        self, steps: Any, path: Path, container: _Step | None, branch: str, around: tuple[_Turn, ...]
    ) -> None:
        for index, data in enumerate(steps if isinstance(steps, list) else ()):
            if len(self._texts) >= MAX_STEPS:
                return
            if not isinstance(data, dict):
                continue
            step_id, kind = data.get("id"), data.get("type")
            step = _Step(str(step_id), str(kind), (*around, _Turn(container, branch, index)))
            if isinstance(step_id, str):
                self._steps.setdefault(step_id, step)
            self._texts.append((step, data, (*path, index)))
            for name in _LISTS:
                self._collect(data.get(name), (*path, index, name), step, name, step.around)
            branches = data.get("branches")
            for name, inner in branches.items() if isinstance(branches, dict) else ():
                self._collect(inner, (*path, index, "branches", name), step, name, step.around)

    def _judged(self, reference: _Reference, step: _Step) -> tuple[str, bool] | None:
        target = self._steps.get(reference.step_id)
        if target is None:
            return (
                f"the flow has no step {reference.step_id!r}{self._hint(reference.step_id)}",
                reference.asked,
            )
        if reference.as_field:
            name = reference.step_id
            return f'`steps` is an object: write steps["{name}"], not steps.{name}', reference.asked
        never = _never_seen(target, step)
        if never is not None:
            return never, reference.asked
        sometimes = None if reference.asked or reference.depends else _sometimes_seen(target, step)
        return None if sometimes is None else (sometimes, True)

    def _hint(self, name: str) -> str:
        if name not in self._suggestions and len(self._suggestions) < MAX_SUGGESTIONS:
            dashed = next((known for known in self._steps if known.startswith(f"{name}-")), None)
            hint = suggestion(name, list(self._steps))
            # `steps.a-b` is a subtraction.
            self._suggestions[name] = hint if dashed is None else f'; did you mean steps["{dashed}"]?'
        return self._suggestions.get(name, "")


def _parting(target: _Step, step: _Step) -> int:
    """How many turns the ways to both have in common."""
    same = 0
    for a, b in zip(target.around, step.around, strict=False):
        # The turns around are shared objects; equal ones of two steps would be compared all the way up.
        if a is not b:
            break
        same += 1
    return same


def _never_seen(target: _Step, step: _Step) -> str | None:
    """Why the output of `target` is never there for `step`, or for what it evaluates itself."""
    name, at = target.id, _parting(target, step)
    if at == len(target.around):
        if target is step:
            return f"step {name!r} cannot see its own output"
        return f"{target.kind} {name!r} is not over for the steps inside it, so its output is not there yet"
    if at == len(step.around):
        return f"step {name!r} is inside {step.id!r} and runs later; its output is not there yet"
    there, here = target.around[at], step.around[at]
    if there.branch == here.branch and there.position > here.position:
        return f"step {name!r} comes later; its output is not there yet"
    if there.branch != here.branch and there.container is not None and there.container.kind == "condition":
        return f"step {name!r} is in the other branch of condition {there.container.id!r}"
    for turn in target.around[at + 1 :]:
        if turn.container is not None and turn.container.kind == "loop":
            return (
                f"step {name!r} is inside loop {turn.container.id!r}, and its output is not seen outside; "
                f'use steps["{turn.container.id}"]["items"]'
            )
    return None


def _sometimes_seen(target: _Step, step: _Step) -> str | None:
    """Why the output of `target` may not be there for `step`."""
    name, at = target.id, _parting(target, step)
    there, here = target.around[at], step.around[at]
    if there.branch != here.branch:
        container = "" if there.container is None else f" of {there.container.id!r}"
        return (
            f"step {name!r} runs in another branch{container} at the same time; its output may not be there"
        )
    for turn in target.around[at + 1 :]:
        if turn.container is not None and turn.container.kind == "condition":
            return f"step {name!r} runs only where condition {turn.container.id!r} takes its branch"
    return None


def _is_hiding(step: dict[str, Any]) -> bool:
    """Whether a step may get, or hand on, a field called `steps`, which hides the outputs by step id."""
    for fields in (step.get("input"), step.get("branches")):
        if isinstance(fields, dict) and _STEPS in fields:
            return True
    for schema in (step.get("inputs"), step.get("output_schema")):
        for part, _ in parts_of(schema, ()):
            properties = part.get("properties") if isinstance(part, dict) else None
            if isinstance(properties, dict) and _STEPS in properties:
                return True
    code = step.get("code")
    return isinstance(code, str) and _FIELD_IN_CODE.search(code) is not None


_FIELD_IN_CODE = re.compile(r"""["']steps["']|\bsteps\s*=""")


def _references_of(step: dict[str, Any], path: Path) -> Iterator[tuple[_Reference, Path]]:
    """The references in a step's own texts, each once per text."""
    kind = step.get("type")
    if kind == "llm":
        for name in ("system", "prompt"):
            yield from _located(_in_template(step.get(name)), (*path, name))
    for part, place in parts_of(step.get("input"), (*path, "input")):
        yield from _located(_in_template(part), place)
    texts: dict[Any, tuple[str, Literal["exec", "eval"]]] = {
        "code": ("code", "exec"),
        "loop": ("over", "eval"),
        "condition": ("if", "eval"),
    }
    if isinstance(kind, str) and kind in texts:
        name, mode = texts[kind]
        yield from _located(_in_python(step.get(name), mode), (*path, name))


def _located(references: Iterator[_Reference], path: Path) -> Iterator[tuple[_Reference, Path]]:
    known = set()
    for reference in references:
        mentioned = reference.step_id, reference.as_field
        if mentioned not in known:
            known.add(mentioned)
            yield reference, path


_TAG = re.compile(
    r"\{#.*?(?:#\}|\Z)|\{%[-+]?\s*raw\s*[-+]?%\}.*?(?:\{%[-+]?\s*endraw\b|\Z)|\{[{%]", re.DOTALL
)
_TOKEN = re.compile(
    r"""(?P<end>[-+]?[}%]\})|(?P<space>\s+)|(?P<text>"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?)|(?P<name>\w+)|.""",
    re.DOTALL,
)
_CONDITIONS = frozenset({"if", "elif", "else", "and", "or"})
_QUESTIONS = frozenset({"defined", "undefined", "default"})


class _Token(NamedTuple):
    kind: str | None
    text: str
    offset: int


def _in_template(text: Any) -> Iterator[_Reference]:
    if not isinstance(text, str) or _STEPS not in text or overlong(text) is not None:
        return
    try:
        names = minijinja.Environment().undeclared_variables_in_str(text, nested=True)
    except minijinja.TemplateError:
        # Told by `flow_check`.
        return
    # A template may have variables of its own that are called so; minijinja knows which are.
    fields = {parts[1] for name in names if len(parts := name.split(".")) > 1 and parts[0] == _STEPS}
    tags = list(_tags(text))
    words = {token.text for tag in tags for token in tag if token.kind == "name"}
    asked = not words.isdisjoint(_QUESTIONS) or any(_asks_in_tag(tag) for tag in tags)
    depends = not words.isdisjoint(_CONDITIONS)
    at, line, start = 0, 1, 0
    for name, is_key, offset in (found for tag in tags for found in _mentioned(tag)):
        # From the mention before, so that a long text is read once.
        line += text.count("\n", at, offset)
        start = max(start, text.rfind("\n", at, offset) + 1)
        at = offset
        if name in fields or (is_key and _STEPS in names):
            yield _Reference(name, line, offset - start + 1, asked, depends)


def _tags(text: str) -> Iterator[list[_Token]]:
    """What stands in each tag of a template, without its spaces."""
    at = 0
    while opening := _TAG.search(text, at):
        at = opening.end()
        if len(opening[0]) > 2:
            continue
        tag: list[_Token] = []
        open_braces = 0
        while token := _TOKEN.match(text, at):
            kind, at = token.lastgroup, token.end()
            if kind == "end":
                if open_braces == 0:
                    break
                # What looks like the end of the tag is that of an object in it.
                kind, at = None, token.start() + 1
            said = text[token.start() : at]
            open_braces += (said == "{") - (said == "}")
            if kind != "space":
                tag.append(_Token(kind, said, token.start()))
        yield tag


def _asks_in_tag(tag: list[_Token]) -> bool:
    pairs = [(a.text, b.text) for a, b in pairwise(tag)]
    return ("in", _STEPS) in pairs or ("|", "d") in pairs


def _mentioned(tag: list[_Token]) -> Iterator[tuple[str, bool, int]]:
    """`steps.name` and `steps["name"]`: the name, whether it is a key, and where it stands."""
    for position, token in enumerate(tag):
        if token.kind != "name" or token.text != _STEPS:
            continue
        if position and tag[position - 1].text in (".", "|"):
            continue
        match tag[position + 1 : position + 4]:
            case [_Token(text="."), _Token(kind="name", text=name), *more]:
                if not (name in _METHODS and more and more[0].text == "("):
                    yield name, False, token.offset
            case [_Token(text="["), _Token(kind="text", text=key), _Token(text="]")] if "\\" not in key:
                yield key[1:-1], True, token.offset


_CONDITIONAL = (ast.If, ast.IfExp, ast.BoolOp, ast.Try, ast.While, ast.Match, ast.comprehension, ast.For)


def _in_python(text: Any, mode: Literal["exec", "eval"]) -> Iterator[_Reference]:
    if not isinstance(text, str) or _STEPS not in text:
        return
    try:
        tree = parse_python(text, mode)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        # Told by `flow_check`.
        return
    nodes = list(ast.walk(tree))
    if any(_binds_steps(node) for node in nodes):
        return
    asked = any(isinstance(node, ast.Try) or _asks(node) for node in nodes)
    depends = any(isinstance(node, _CONDITIONAL) for node in nodes)
    lines = text.encode().split(b"\n")
    known = set()
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as key)) if (
                name == _STEPS and isinstance(node.ctx, ast.Load)
            ):
                found = _Reference(key, node.lineno, asked=asked, depends=depends)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="get"),
                args=[ast.Constant(value=str() as key), *_],
            ) if name == _STEPS:
                found = _Reference(key, node.lineno, asked=True, depends=True)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == _STEPS and not (
                id(node) in called and attribute in _METHODS
            ):
                found = _Reference(attribute, node.lineno, asked=asked, depends=depends, as_field=True)
            case _:
                continue
        if (mentioned := (found.step_id, found.as_field)) in known:
            continue
        known.add(mentioned)
        before = lines[node.lineno - 1][: node.col_offset] if node.lineno <= len(lines) else b""
        yield found._replace(column=len(before.decode(errors="ignore")) + 1)


def _binds_steps(node: ast.AST) -> bool:
    """Whether the code calls something of its own `steps`."""
    match node:
        case ast.Name(id=name):
            return name == _STEPS and not isinstance(node.ctx, ast.Load)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name == _STEPS
        case ast.arg(arg=name):
            return name == _STEPS
        case ast.alias(name=name, asname=other):
            return _STEPS in (other or name.partition(".")[0], name)
        case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
            return name == _STEPS
        case ast.MatchMapping(rest=name):
            return name == _STEPS
    return False


def _asks(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare) and any(
        isinstance(operator, ast.In | ast.NotIn) and isinstance(right, ast.Name) and right.id == _STEPS
        for operator, right in zip(node.ops, node.comparators, strict=True)
    )

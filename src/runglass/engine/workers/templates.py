"""Fills templates with the names of a step: prompts, and the strings of a step's own `input`.

Most templates only put names and parts of them into a text; that is done here. Everything else goes to a
process of its own, for reasons told in `template_worker`, with no more of the names than the template
mentions. Both write the same: text as it is, objects and lists as JSON; None, True and False as Jinja does.

Knows nothing of flows and steps: a template and names in, text, a value or a StepFailure out.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from runglass.config.settings import USUAL, Settings
from runglass.engine.workers.code_transform import NOWHERE, Path, look_up
from runglass.engine.workers.pool import LimitHit, WorkerPool
from runglass.engine.workers.process import BEYOND, at_once
from runglass.engine.workers.template_worker import TEXT_LIMIT, RenderRequest, template_error
from runglass.limits.limits import most
from runglass.limits.offload import offload_in_turn
from runglass.support.byte_cache import ByteCache
from runglass.support.json_weight import too_heavy

_CACHED_LENGTH = 16 * 1024
_DEEPEST = 16

Mentions = dict[str, "Mentions | None"]
"""The names mentioned in a template: each with None for all of it, or with the names mentioned inside."""


class Plan(NamedTuple):
    """A template as far as it is understood here: `pieces` is None where the other process is needed."""

    pieces: tuple[str | Path, ...] | None
    mentions: Mentions
    is_expression: bool


_NAME = r"[^\W\d]\w*+"
_STEP = rf"""\.{_NAME}|\[\d{{1,9}}\]|\["[^"\\{{}}]*"\]|\['[^'\\{{}}]*'\]"""
_PATH = re.compile(rf"\{{\{{\s*+({_NAME})((?:{_STEP})*+)\s*+\}}\}}")
_MENTION = re.compile(rf"({_NAME})((?:{_STEP})*+)")
_OPENING = re.compile(r"\{\{|\{%")
_CLOSING = re.compile(r"\}\}|%\}")
_EXPRESSION = re.compile(r"\s*+\{\{(?:(?!\}\}|\{\{|\{%|%\}|\{#).)*+\}\}\s*+", re.DOTALL)
_CONSTANTS = {"true", "True", "false", "False", "none", "None", "not"}


def make_plan(template: str) -> Plan:
    """The plan of the template, in time linear in its length."""
    pieces: list[str | Path] = []
    at = 0
    for match in _PATH.finditer(template):
        pieces += [template[at : match.start()], Path(match[1], tuple(_steps(match[2])))]
        at = match.end()
    pieces = [piece for piece in [*pieces, template[at:]] if piece]
    simple = "{{{" not in template and all(
        piece.root not in _CONSTANTS if isinstance(piece, Path) else not re.search(r"\{[{%#]", piece)
        for piece in pieces
    )
    return Plan(
        tuple(pieces) if simple else None, mentions_of(template), _EXPRESSION.fullmatch(template) is not None
    )


def _beside(plan: Plan) -> int:
    """About how many bytes a plan takes beside its text: callers can send templates that are all names."""
    return 200 * (len(plan.pieces or ()) + _count(plan.mentions))


def _count(mentions: Mentions) -> int:
    return sum(1 + (_count(inside) if inside else 0) for inside in mentions.values())


plans = ByteCache(make_plan, times=3, share=0.05, beside=_beside)
"""The plans of short templates."""


async def _plan_of(template: str) -> Plan:
    if len(template) > _CACHED_LENGTH:
        return await offload_in_turn(functools.partial(make_plan, template))
    return plans(template)


def _steps(text: str) -> Iterator[str | int]:
    for step in re.findall(_STEP, text):
        if step[0] == ".":
            yield step[1:]
        else:
            yield step[2:-2] if step[1] in "\"'" else int(step[1:-1])


def mentions_of(template: str) -> Mentions:
    """Every name that the template may use, as far into it as is plain to see, and some that it does not."""
    mentioned: Mentions = {}
    for part in _OPENING.split(template)[1:]:
        code = _CLOSING.split(part, maxsplit=1)[0]
        # With a string or an object in it, what looks like its end may not be its end.
        for match in _MENTION.finditer(part if re.search("[\"'{]", code) else code):
            _mention(mentioned, [match[1], *_steps(match[2])])
            # What looks like a key in brackets may be code between two strings.
            for key in re.findall(r"\[([\"'].*?[\"'])\]", match[2], re.DOTALL):
                for name in re.findall(_NAME, key):
                    mentioned[name] = None
    return mentioned


def _mention(mentioned: Mentions, path: list[str | int]) -> None:
    # An item of a list is nowhere without the items before it.
    keys = [str(step) for step in itertools.takewhile(lambda step: isinstance(step, str), path[:_DEEPEST])]
    for key in keys[:-1]:
        inside = mentioned.setdefault(key, {})
        if inside is None:
            return
        mentioned = inside
    mentioned[keys[-1]] = None


def picked(mentions: Mentions, names: Mapping[str, Any]) -> dict[str, Any]:
    """The mentioned part of the names, and nothing beside it."""
    found: dict[str, Any] = {}
    for key, inside in mentions.items():
        if key not in names:
            continue
        value = names[key]
        # Where a method may be meant, as in `data.items()`, all of the object is.
        whole = (
            inside is None
            or not isinstance(value, dict)
            or any(name not in value and hasattr(dict, name) for name in inside)
        )
        found[key] = value if whole or inside is None else picked(inside, value)
    return found


def filled(pieces: tuple[str | Path, ...], names: Mapping[str, Any]) -> str | None:
    """The text of a plan's pieces; None where the other process is needed. Raises StepFailure."""
    texts = []
    room = TEXT_LIMIT
    for piece in pieces:
        text = piece if isinstance(piece, str) else _text(look_up(piece, names))
        if text is None:
            return None
        room -= len(text)
        if room < 0:
            # At once: a template may name a text of megabytes a thousand times.
            raise template_error(f"the template makes a text of more than {TEXT_LIMIT} characters")
        texts.append(text)
    return "".join(texts)


def _text(value: Any) -> str | None:
    """The value as it stands in a text; None where the other process knows better, or that it is an error."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    # Floats and large numbers are written differently there than Python would.
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return str(value)
    return None


MEMORY_LIMIT_BYTES = 512 << 20
CPU_LIMIT_MS = 1_000


class Templates(WorkerPool):
    """Renders templates; the processes for those that need one start when first needed.

    A task that needs a process waits for the turn of its project. Two go on for each processor, and those of
    further projects beside them.
    """

    def __init__(self, settings: Settings = USUAL) -> None:
        slots = at_once()
        super().__init__(
            "runglass.engine.workers.template_worker:answered",
            what="templates",
            memory_limit_bytes=MEMORY_LIMIT_BYTES,
            slots=slots,
            most=slots * BEYOND,
            most_each=most(settings.max_concurrent_steps_per_project),
        )

    async def render(self, template: str, names: Mapping[str, Any], *, project_id: int = 0) -> str:
        """The template's text. Raises StepFailure TEMPLATE_ERROR, for an unknown name among others.

        Takes some microseconds, and lets go of the event loop only where another process is asked.
        """
        return await self._render(template, await _plan_of(template), names, project_id)

    async def _render(self, template: str, plan: Plan, names: Mapping[str, Any], project_id: int) -> str:
        text: str | None = None
        if plan.pieces is not None:
            # What a long template does takes linear time, and a second of it.
            filling = functools.partial(filled, plan.pieces, names)
            text = await offload_in_turn(filling) if len(template) > _CACHED_LENGTH else filling()
        if text is None:
            text = await self._asked(template, plan, names, "text", project_id)
            assert isinstance(text, str)
        return text

    async def render_input(self, value: Any, names: Mapping[str, Any], *, project_id: int = 0) -> Any:
        """A copy of a step's `input` with each string in it rendered; otherwise like `render`.

        A string that is one `{{ expression }}` gives the value of that, which may be an object or a list.
        """
        if isinstance(value, dict):
            return {
                key: await self.render_input(inner, names, project_id=project_id)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [await self.render_input(inner, names, project_id=project_id) for inner in value]
        if not isinstance(value, str):
            return value
        plan = await _plan_of(value)
        if not plan.is_expression:
            return await self._render(value, plan, names, project_id)
        path = next((piece for piece in plan.pieces or () if isinstance(piece, Path)), None)
        found = NOWHERE if path is None else look_up(path, names)
        if found is not NOWHERE:
            return found
        return await self._asked(value, plan, names, "value", project_id)

    async def _asked(
        self,
        template: str,
        plan: Plan,
        names: Mapping[str, Any],
        want: Literal["text", "value"],
        project_id: int,
    ) -> Any:
        ask = RenderRequest(template, picked(plan.mentions, names), want)
        try:
            return await self.call(
                functools.partial(msgspec.json.encode, ask),
                functools.partial(_read, want),
                what="to render",
                limit_ms=CPU_LIMIT_MS,
                project_id=project_id,
                owner=project_id,
            )
        except LimitHit as limit:
            raise template_error("the template takes too much memory or time") from limit


def _read(want: Literal["text", "value"], encoded: bytes) -> Any:
    if want == "value" and (reason := too_heavy(encoded)):
        raise template_error(f"what the template makes cannot be read: {reason}")
    return msgspec.json.decode(encoded)

"""The data that an attacked server starts with: two projects, their keys, and the flows that they run."""

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from runglass.api_keys import make_key
from runglass.composition import open_store
from runglass.flow_parser import parse_flow
from runglass.runtime import push_flow
from runglass.settings import Settings
from runglass.store.base import Store
from runglass.store.records import Role
from tests.prove.attacking.places import ATTACKER, NEIGHBOUR, SPENDER

BUDGET_USD = Decimal("0.05")
CALL_USD = Decimal("0.01")
"""What one call of the dear model costs; the cheap one costs a hundredth."""

ROLES: tuple[Role, ...] = ("admin", "run", "read")


class Seeded(NamedTuple):
    """Keys of the projects by role, those of the spender as `spend-ROLE`."""

    neighbour_key: str
    keys: dict[str, str]


ANSWER = {
    "slug": "answer",
    "steps": [{"id": "answer", "type": "llm", "model": "echo", "prompt": "{{ message }}"}],
}
COPY = {"slug": "copy", "steps": [{"id": "copy", "type": "passthrough"}]}
HOLD = {"slug": "hold", "steps": [{"id": "hold", "type": "wait", "ms": 600_000}]}
WALK = {"slug": "walk", "steps": [{"id": name, "type": "passthrough"} for name in ("one", "two", "three")]}
SECRET = {**ANSWER, "slug": "secret", "capture": "off"}
SPEND = {
    "slug": "spend",
    "steps": [
        {
            "id": "spend",
            "type": "llm",
            "model": "fake:cheap",
            "prompt": "{{ message }}",
            "settings": {"max_tokens": 100},
        }
    ],
}
SPEND_DEAR = {**SPEND, "slug": "spend-dear", "steps": [{**SPEND["steps"][0], "model": "fake:dear"}]}  # type: ignore[dict-item]

QUIET = {
    "slug": "quiet",
    "steps": [
        {"id": "words", "type": "code", "code": 'return {"words": message.split()}'},
        {"id": "line", "type": "passthrough", "input": {"text": "{{ words | join(' ') }}"}},
        {"id": "answer", "type": "llm", "model": "echo", "prompt": "{{ text }}"},
    ],
}

FLOWS: dict[str, list[dict[str, Any]]] = {
    NEIGHBOUR: [QUIET],
    ATTACKER: [ANSWER, COPY, HOLD, WALK, SECRET],
    SPENDER: [SPEND, SPEND_DEAR],
}


def copied(source: Path, target: Path) -> None:
    """The folder of an attack, from the one that was seeded."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


async def spent_usd(folder: Path) -> Decimal:
    """What the books of the spender's project say; also while a server has them open."""
    async with open_store(Settings(data=folder)) as store:
        return (await store.ensure_project(*SPENDER.split("/"))).spent_usd


async def seed(folder: Path) -> Seeded:
    """Makes a data folder with all of it."""
    async with open_store(Settings(data=folder)) as store:
        keys = {role: await _key(store, ATTACKER, role) for role in ROLES}
        keys |= {f"spend-{role}": await _key(store, SPENDER, role) for role in ROLES}
        neighbour_key = await _key(store, NEIGHBOUR, "run")
        for place, flows in FLOWS.items():
            project = await store.ensure_project(*place.split("/"))
            for flow in flows:
                record = await push_flow(store, project, parse_flow(json.dumps(flow)))
                await store.publish(record.id)
            if place == SPENDER:
                await store.set_budget(project.id, BUDGET_USD)
    return Seeded(neighbour_key, keys)


async def _key(store: Store, place: str, role: Role) -> str:
    project = await store.ensure_project(*place.split("/"))
    made = make_key()
    await store.add_key(project.id, role, made.digest, made.hint)
    return made.key

"""The data that an attacked server starts with: two projects, their keys, and the flows that they run."""

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from runglass.config.settings import Settings
from runglass.flows.parser import parse_flow
from runglass.runtime.composition import open_store
from runglass.runtime.runtime import push_flow
from runglass.store.base import Store
from runglass.store.records import Role
from runglass.wire.admin_api import make_key
from tests.postgres_server import postgres_server
from tests.prove.attacking.places import ATTACKER, BANK, NEIGHBOUR, SPENDER

StoreKind: TypeAlias = Literal["sqlite", "postgres"]

BUDGET_USD = Decimal("0.05")
HOSTED = {
    "openai:m": "OPENAI_BASE_URL",
    "openai-responses:m": "OPENAI_BASE_URL",
    "anthropic:m": "ANTHROPIC_BASE_URL",
    "google:m": "GOOGLE_GEMINI_BASE_URL",
    "groq:m": "GROQ_BASE_URL",
}
"""Models of the libraries of providers, and the variable that leads each to another server."""
CALL_USD = Decimal("0.01")
"""What one call of the dear model costs; the cheap one costs a hundredth."""

ROLES: tuple[Role, ...] = ("admin", "run", "read", "record")


class Seeded(NamedTuple):
    """Keys of the projects by role, those of the spender as `spend-ROLE`, of the bank as `bank-ROLE`."""

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

ASK = {
    "slug": "ask",
    "steps": [
        {
            "id": "ask",
            "type": "llm",
            "model": "evil:model",
            "prompt": "{{ message }}",
            "settings": {"max_tokens": 100},
            "retry": {"max_attempts": 2, "initial_delay_ms": 1, "max_delay_ms": 100},
        }
    ],
}


def _asked(slug: str, **fields: Any) -> dict[str, Any]:
    return {"slug": slug, "steps": [{**ASK["steps"][0], **fields}]}  # type: ignore[dict-item]


FLOWS: dict[str, list[dict[str, Any]]] = {
    NEIGHBOUR: [QUIET],
    ATTACKER: [ANSWER, COPY, HOLD, WALK, SECRET],
    SPENDER: [SPEND, SPEND_DEAR],
    BANK: [
        ASK,
        _asked("ask-whole", settings={"max_tokens": 100, "stream": False}),
        _asked("ask-briefly", timeout_ms=1500),
        *[_asked(f"ask-{model.partition(':')[0]}", model=model) for model in HOSTED],
    ],
}
BUDGETS = {SPENDER: BUDGET_USD, BANK: Decimal(1000)}


class Ground:
    """Where the server keeps its data: a folder, and a database where the store is PostgreSQL."""

    def __init__(self, folder: Path, store: StoreKind) -> None:
        self._seeded = folder / "seeded"
        self._store = store
        self._database = ""
        self.data = folder / "data"

    @property
    def settings(self) -> Settings:
        """Of what opens the data that the server has."""
        return self._settings(self.data, "attacked")

    async def seed(self) -> Seeded:
        """Makes all of it, to be copied."""
        self._seeded.mkdir(parents=True)
        if self._store == "postgres":
            self._database = await postgres_server().make_database()
        return await _seed(self._settings(self._seeded, self._database))

    async def copy(self) -> None:
        """Gives the next server what was seeded, and nothing else."""
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(self._seeded, self.data)
        if self._store == "postgres":
            await postgres_server().execute(
                "DROP DATABASE IF EXISTS attacked WITH (FORCE)",
                f"CREATE DATABASE attacked TEMPLATE {self._database} STRATEGY FILE_COPY",
            )

    def _settings(self, folder: Path, database: str) -> Settings:
        is_postgres = self._store == "postgres"
        return Settings(data=folder, store=postgres_server().address(database) if is_postgres else None)


async def spent_usd(settings: Settings, place: str = SPENDER) -> Decimal:
    """What the books of a project say; also while a server has them open."""
    async with open_store(settings) as store:
        return (await store.ensure_project(*place.split("/"))).spent_usd


async def _seed(settings: Settings) -> Seeded:
    async with open_store(settings) as store:
        keys = {role: await _key(store, ATTACKER, role) for role in ROLES}
        keys |= {f"spend-{role}": await _key(store, SPENDER, role) for role in ROLES}
        keys |= {f"bank-{role}": await _key(store, BANK, role) for role in ROLES}
        neighbour_key = await _key(store, NEIGHBOUR, "run")
        for place, flows in FLOWS.items():
            project = await store.ensure_project(*place.split("/"))
            for flow in flows:
                record = await push_flow(store, project, parse_flow(json.dumps(flow)))
                await store.publish(record.id)
            if place in BUDGETS:
                await store.set_budget(project.id, BUDGETS[place])
    return Seeded(neighbour_key, keys)


async def _key(store: Store, place: str, role: Role) -> str:
    project = await store.ensure_project(*place.split("/"))
    made = make_key()
    await store.add_key(project.id, role, made.digest, made.hint)
    return made.key

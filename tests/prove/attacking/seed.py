"""The data that an attacked server starts with: two projects, their keys, and the flows that they run."""

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

from runglass.config.settings import Settings
from runglass.runtime.composition import open_store
from runglass.store.records import Role
from tests.postgres_server import postgres_server
from tests.prove.attacking.http import ATTACKER, BANK, NEIGHBOUR, SPENDER
from tests.prove.furnish import furnish

Keys: TypeAlias = dict[str, str]
"""Keys of the projects by role, behind the prefix of their project."""
StoreKind: TypeAlias = Literal["sqlite", "postgres"]

BUDGET_USD = Decimal("0.05")
CALL_USD = Decimal("0.01")
"""What one call costs: prompts are free, and a hundred tokens come back."""

ROLES: tuple[Role, ...] = ("admin", "run", "read", "record")
PREFIXES = {NEIGHBOUR: "quiet-", ATTACKER: "", SPENDER: "spend-", BANK: "bank-"}


ANSWER = {
    "slug": "answer",
    "steps": [{"id": "answer", "type": "llm", "model": "echo", "prompt": "{{ message }}"}],
}
COPY = {"slug": "copy", "steps": [{"id": "copy", "type": "passthrough"}]}
HOLD = {"slug": "hold", "steps": [{"id": "hold", "type": "wait", "ms": 600_000}]}
WALK = {"slug": "walk", "steps": [{"id": name, "type": "passthrough"} for name in ("one", "two", "three")]}
QUIET = {
    "slug": "quiet",
    "steps": [
        {"id": "words", "type": "code", "code": 'return {"words": message.split()}'},
        {"id": "line", "type": "passthrough", "input": {"text": "{{ words | join(' ') }}"}},
        {"id": "answer", "type": "llm", "model": "echo", "prompt": "{{ text }}"},
    ],
}


CALL: dict[str, Any] = {
    "id": "ask",
    "type": "llm",
    "model": "evil:model",
    "prompt": "{{ message }}",
    "settings": {"max_tokens": 100},
    "retry": {"max_attempts": 2, "initial_delay_ms": 1, "max_delay_ms": 100},
}


def _asked(slug: str, **fields: Any) -> dict[str, Any]:
    return {"slug": slug, "steps": [{**CALL, **fields}]}


FLOWS: dict[str, list[dict[str, Any]]] = {
    NEIGHBOUR: [QUIET],
    ATTACKER: [ANSWER, COPY, HOLD, WALK],
    SPENDER: [_asked("spend", model="fake:dear")],
    BANK: [
        _asked("ask"),
        _asked("ask-whole", settings={"max_tokens": 100, "stream": False}),
        _asked("ask-briefly", timeout_ms=1500),
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
        return self._settings(self.data, "attacked")

    async def seed(self) -> Keys:
        self._seeded.mkdir(parents=True)
        if self._store == "postgres":
            self._database = await postgres_server().make_database()
        keys = {}
        async with open_store(self._settings(self._seeded, self._database)) as store:
            for place, flows in FLOWS.items():
                for role in ROLES:
                    keys[f"{PREFIXES[place]}{role}"] = await furnish(store, place, role=role)
                await furnish(store, place, map(json.dumps, flows))
                if place in BUDGETS:
                    project = await store.ensure_project(*place.split("/"))
                    await store.set_budget(project.id, BUDGETS[place])
        return keys

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

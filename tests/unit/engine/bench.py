"""A fake provider, the gateway that asks it, and an engine with these models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runglass.config.settings import Settings
from runglass.engine.models.gateway import ModelAnswer, ModelGateway, ModelRequest
from runglass.errors import StepFailure
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.run_api import CaptureMode
from tests.unit.engine.conftest import EngineHarness, Ran, open_harness, run_to_end
from tests.unit.engine.fake_provider import FakeProvider, Reply

SECRET = "sk-a-very-secret-key"
HELLO = [{"role": "user", "content": "Hello"}]


class Bench:
    """Models `local:…` of the provider `fake`; `pieces` is the text that they streamed to `ask`."""

    def __init__(self, fake: FakeProvider, models: ModelGateway, house: EngineHarness) -> None:
        self.fake = fake
        self.models = models
        self.house = house
        self.pieces: list[str] = []

    async def ask(self, *replies: Reply, model: str = "local:tiny", **fields: Any) -> ModelAnswer:
        """One answer, without a run."""
        self.fake.replies.extend(replies)
        # Asked as the reply is made; what a server does of itself has tests of its own.
        fields = {"settings": {"stream": True}, "messages": HELLO} | fields
        return await self.models.complete(ModelRequest(model=model, **fields), self.pieces.append)

    async def failure(self, *replies: Reply, **fields: Any) -> StepFailure:
        with pytest.raises(StepFailure) as caught:
            await self.ask(*replies, **fields)
        return caught.value

    async def run(self, flow: str, *replies: Reply, capture: CaptureMode = "full") -> Ran:
        self.fake.replies[:] = replies
        return await run_to_end(self.house, flow, capture=capture)


@asynccontextmanager
async def open_bench(folder: Path, **settings: Any) -> AsyncIterator[Bench]:
    """With the models' settings, of which `providers` stand in for `fake` where they are given."""
    async with FakeProvider().serving() as fake:
        settings = {"providers": {"local": fake.base_url}, "provider_keys": {"local": SECRET}} | settings
        async with (
            ModelGateway(Settings(**settings)) as models,
            open_harness(SqliteStore(folder / "db", synchronous="NORMAL"), models=models) as house,
        ):
            yield Bench(fake, models, house)

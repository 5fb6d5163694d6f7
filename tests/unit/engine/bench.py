"""A fake provider, the gateway that asks it, and an engine with these models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runglass.config.settings import Settings
from runglass.engine.models.gateway import ModelAnswer, ModelGateway, ModelRequest
from runglass.errors import StepFailure
from runglass.flows.flow import Flow
from tests.unit.engine.conftest import EngineHarness, Ran, open_harness
from tests.unit.engine.fake_provider import FAMILIES, KEY, FakeProvider, Reply

HELLO = [{"role": "user", "content": "Hello"}]


class Bench:
    """The models of all families, whose provider is `fake`; `pieces` is the text that `ask` heard of them."""

    def __init__(self, fake: FakeProvider, models: ModelGateway) -> None:
        self.fake = fake
        self.models = models
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


class EngineBench(Bench):
    """The same with an engine, `house`."""

    def __init__(self, fake: FakeProvider, models: ModelGateway, house: EngineHarness) -> None:
        super().__init__(fake, models)
        self.house = house

    async def run(self, flow: Flow | str, *replies: Reply, **more: Any) -> Ran:
        self.fake.replies[:] = replies
        return await self.house.run_to_end(flow, **more)


@asynccontextmanager
async def open_bench(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Bench]:
    """With the models' settings, of which `providers` stand in for `fake` where they are given."""
    # Only here: it takes a while to load.
    from mistralai.client import sdkconfiguration

    async with FakeProvider().serving() as fake:
        host = fake.base_url.removesuffix("/v1")
        monkeypatch.setenv("OPENAI_BASE_URL", fake.base_url)
        for name in ("ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL", "GROQ_BASE_URL"):
            monkeypatch.setenv(name, host)
        monkeypatch.setitem(sdkconfiguration.SERVERS, sdkconfiguration.SERVER_GLOBAL, host)
        # The one that it is not asked with.
        monkeypatch.setenv("OPENAI_API_KEY", "sk-another-secret-key")
        keys = {family.model.partition(":")[0]: KEY for family in FAMILIES.values()}
        asked_here: dict[str, Any] = {"providers": {"local": fake.base_url}, "provider_keys": keys}
        async with ModelGateway(Settings(**asked_here | settings)) as models:
            yield Bench(fake, models)


@asynccontextmanager
async def open_engine_bench(
    folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[EngineBench]:
    async with (
        open_bench(monkeypatch, **settings) as bench,
        open_harness(folder / "db", models=bench.models) as house,
    ):
        yield EngineBench(bench.fake, bench.models, house)


def bench_with(**settings: Any) -> Any:
    """A fixture: a bench with these settings of the models."""

    @pytest.fixture
    async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
        async with open_bench(monkeypatch, **settings) as opened:
            yield opened

    return bench


def engine_bench_with(**settings: Any) -> Any:
    """A fixture: the same with an engine."""

    @pytest.fixture
    async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineBench]:
        async with open_engine_bench(tmp_path, monkeypatch, **settings) as opened:
            yield opened

    return bench

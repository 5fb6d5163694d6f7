"""Each store in turn."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runglass.store.base import Store
from tests.conformance.stores import ALL_STORES, store_kinds


@pytest.fixture(params=store_kinds())
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with ALL_STORES[request.param](tmp_path) as opened:
        yield opened

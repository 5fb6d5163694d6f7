"""What tests of a store on PostgreSQL begin with."""

import asyncio
from pathlib import Path

import pytest

from tests.postgres_server import postgres_server


@pytest.fixture
async def address(tmp_path: Path) -> str:
    """That of a database of the test's own."""
    return await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)

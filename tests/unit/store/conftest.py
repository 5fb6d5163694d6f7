"""What tests of a store on PostgreSQL begin with."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from runglass.store.postgres.store import PostgresStore
from tests.postgres_server import connected, postgres_server


@pytest.fixture
async def address(tmp_path: Path) -> str:
    """That of a database of the test's own."""
    return await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)


@pytest.fixture
async def session(address: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of the owner of its tables."""
    async with connected(address) as connection:
        yield connection


@pytest.fixture
async def store(address: str) -> AsyncIterator[PostgresStore]:
    """One on that database."""
    async with PostgresStore(address) as opened:
        yield opened

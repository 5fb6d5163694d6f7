"""What an append does in the database: in the middle of a run no more than it writes."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from runglass.store.postgres.store import PostgresStore
from tests.conformance.stores import batch, make_run

pytestmark = pytest.mark.slow

# Statements are counted, whether they find rows or not.
COUNT = """
CREATE TABLE seen (name text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO seen VALUES (TG_TABLE_NAME || ' ' || lower(TG_OP));
  RETURN NULL;
END
$$;
CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON queue FOR EACH STATEMENT EXECUTE FUNCTION see();
CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON project_total
FOR EACH STATEMENT EXECUTE FUNCTION see();
CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON run FOR EACH STATEMENT EXECUTE FUNCTION see();
"""


@pytest.fixture
async def db(store: PostgresStore, address: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(address)
    await connection.execute(COUNT)
    yield connection
    await connection.close()


async def seen(db: asyncpg.Connection) -> set[str]:
    return {str(row[0]) for row in await db.fetch("DELETE FROM seen RETURNING name")}


async def test_an_append_in_the_middle_of_a_run_changes_its_row_and_looks_at_no_queue(
    store: PostgresStore, db: asyncpg.Connection
) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", owner="me"))
    await seen(db)
    await store.append(batch(run, 1, b"2", owner="me"))
    assert await seen(db) == {"run update"}
    await store.append(batch(run, 2, b"3", owner="me", log_bytes=5))
    assert await seen(db) == {"run update", "project_total insert", "project_total update"}

"""Statements stay prepared on connections of our own, and never where a pooler may stand between."""

import tempfile
from pathlib import Path

import pytest

from runglass.store.postgres.store import PostgresStore
from tests.conformance.stores import batch, make_run
from tests.postgres_proxy import cutting_proxy

pytestmark = pytest.mark.slow

READ = "FROM run WHERE id = $1"


@pytest.mark.parametrize("is_pooler", [False, True])
async def test_a_statement_is_prepared_once_for_a_connection_but_never_by_way_of_a_pooler(
    address: str, *, is_pooler: bool
) -> None:
    # Sockets have short names.
    with tempfile.TemporaryDirectory(prefix="runglass-") as folder:
        async with (
            cutting_proxy(address, Path(folder), names_itself=is_pooler) as (proxy, by_way_of_it),
            PostgresStore(by_way_of_it) as store,
        ):
            run = await make_run(store)
            for seq in range(3):
                await store.append(batch(run, seq, b"1"))
                found = await store.run(run.id)
                assert found is not None
                assert found.head == seq + 1
            prepared = [statement for statement in proxy.prepared if statement.endswith(READ)]
            assert len(prepared) == (0 if is_pooler else 1)
            assert bool(proxy.prepared) is not is_pooler

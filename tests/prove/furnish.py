"""What a server is given before it starts: projects, their keys, and flows that are published.

`python -m tests.prove.furnish ADDRESS` does so for a cluster and prints the key of its project, by
whichever program Python finds: the schema is that of this program, which may be older than the tests.
"""

import asyncio
import sys
from collections.abc import Iterable

from runglass.flows.parser import parse_flow
from runglass.runtime.runtime import push_flow
from runglass.store.base import Store
from runglass.store.keys import make_key
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import Role
from tests.prove.killing.flows import FLOWS, PLACE


async def furnish(store: Store, place: str, flows: Iterable[str] = (), *, role: Role = "admin") -> str:
    """Publishes the flows in the project; a new key of it."""
    new = make_key()
    project = await store.ensure_project(*place.split("/"))
    await store.add_key(project.id, role, new.digest, new.hint)
    for text in flows:
        record = await push_flow(store, project, parse_flow(text))
        await store.publish(record.id)
    return new.key


async def furnish_kill(store: Store) -> str:
    """What `prove kill` and `prove cluster` run; a key for it."""
    return await furnish(store, PLACE, [flow.text for flow in FLOWS.values()])


async def _main(address: str) -> None:
    async with PostgresStore(address, patience_s=5.0) as store:
        sys.stdout.write(await furnish_kill(store))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))

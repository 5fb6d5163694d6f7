"""Makes the projects and flows of a cluster in its database, by whichever program Python finds.

`python -m tests.prove.clustering.furnish ADDRESS` prints the keys of the projects: the schema is then the one
of that program, which may be older than the tests.
"""

import asyncio
import sys

import msgspec

from runglass.flows.parser import parse_flow
from runglass.runtime.runtime import push_flow
from runglass.store.postgres.store import PostgresStore
from runglass.wire.admin_api import make_key
from tests.prove.clustering.fairness import CROWD, CROWD_FLOW
from tests.prove.killing.book import PLACE
from tests.prove.killing.flows import FLOWS


async def furnish(address: str) -> dict[str, str]:
    """Makes two projects and all flows, published; the keys of the projects."""
    keys = {}
    async with PostgresStore(address, patience_s=5.0) as store:
        for place, flows in ((PLACE, [flow.text for flow in FLOWS.values()]), (CROWD, [CROWD_FLOW])):
            new = make_key()
            project = await store.ensure_project(*place.split("/"))
            await store.add_key(project.id, "admin", new.digest, new.hint)
            for text in flows:
                record = await push_flow(store, project, parse_flow(text))
                await store.publish(record.id)
            keys[place] = new.key
    return keys


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(furnish(sys.argv[1]))))

"""A trace equals the fold of its events, as a client reads both over HTTP."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runglass import Client
from runglass.flows.flow import Flow
from runglass.log.fold import fold
from runglass.testing import RunningServer
from tests.examples import examples
from tests.flows import flow_trees
from tests.servers import server_with

server = server_with()


@examples(12, of=25)
@given(flow=flow_trees(), live=st.booleans())
def test_the_trace_is_the_fold_of_the_live_trace(server: RunningServer, flow: Flow, *, live: bool) -> None:
    """With nested loops, parallel branches, retries, skips and failures; afterwards and meanwhile."""
    server.push(flow.encode().decode())
    with Client(server.key, base_url=server.base_url, org="acme", project="demo") as client:
        job = client.flow("generated").execute_async(parameters={"n": 1}, trace=True)
        if not live:
            job.run.wait(60)
        told = fold(job.run.live_trace())
        assert job.run.trace() == told
        assert told.flow_run.status in ("completed", "failed")
        listed = msgspec.structs.replace(told.flow_run, input=None, result=None)
        assert next(client.flow("generated").runs(limit=1)) == listed

"""Limits of waiting runs that hold over all servers on one database, whichever of them is asked."""

from contextlib import ExitStack

import pytest

from runglass.testing import running_server
from tests.contract.wire import ANYTHING, detail, http_for, refusal
from tests.postgres_server import postgres_database

pytestmark = pytest.mark.slow

MOST_EACH = 3


def test_a_queue_that_is_full_is_full_at_each_server_and_for_one_project_alone() -> None:
    with ExitStack() as opened:
        address = opened.enter_context(postgres_database())
        one, other = (
            opened.enter_context(
                running_server(store=address, executes_runs=False, max_queued_runs_per_project=MOST_EACH)
            )
            for _ in range(2)
        )
        one.push(ANYTHING)
        one.push(ANYTHING, project="shop")
        key = one.make_key("acme", "shop")
        first, second = (opened.enter_context(http_for(server, one.key)) for server in (one, other))
        neighbour = opened.enter_context(http_for(other, key))
        for _ in range(MOST_EACH):
            assert first.post("/seq/acme/demo/anything/jobs", json={}).status_code == 202
        for http in (first, second):
            refused = http.post("/seq/acme/demo/anything/jobs", json={})
            assert refusal(refused) == (503, "UNAVAILABLE")
            assert refused.headers["Retry-After"] == "1"
            assert detail(refused)["limit"] == "max_queued_runs_per_project"
        assert neighbour.post("/seq/acme/shop/anything/jobs", json={}).status_code == 202

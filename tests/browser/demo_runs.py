"""The runs that `runglass demo` leaves behind: what a newcomer sees."""

from typing import NamedTuple

from runglass.cli.demo.run import example_flows, leave_example_runs
from runglass.client import Client
from runglass.testing import ORG, PROJECT, RunningServer


class Runs(NamedTuple):
    """The ids of the demo's runs, by what came of them; `good` and `failed` are of the same flow."""

    good: str
    failed: str
    retried: str
    nested: str
    cancelled: str
    waiting: str


def leave_demo_runs(server: RunningServer) -> Runs:
    """Makes the demo's runs in `acme/demo` of the server."""
    for flow in example_flows():
        server.push(flow.encode().decode())
    with Client(server.key, base_url=server.base_url) as client:
        found = [client.run(run_id).trace() for run_id in leave_example_runs(client, f"{ORG}/{PROJECT}")]
    by_kind = {(trace.flow_run.flow_slug, trace.flow_run.status): trace.flow_run.id for trace in found}
    return Runs(
        good=by_kind["add-up-orders", "completed"],
        failed=by_kind["add-up-orders", "failed"],
        retried=by_kind["ask-a-flaky-source", "completed"],
        nested=by_kind["search-a-grid", "completed"],
        cancelled=by_kind["wait-for-a-person", "cancelled"],
        waiting=by_kind["answer-with-tools", "paused"],
    )

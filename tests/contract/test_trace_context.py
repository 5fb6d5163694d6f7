"""The W3C trace of a caller: kept with the run, told in its trace, and never in the way of a call."""

import re

import httpx2
import pytest

from runglass import Client
from runglass.testing import RunningServer

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"


def posted(http: httpx2.Client, call: str, headers: list[tuple[str, str]]) -> str:
    answer = http.post(f"/seq/acme/demo/anything/{call}", json={}, headers=httpx2.Headers(headers))
    assert answer.status_code in (200, 202), answer.text
    run = re.search('"executionId":"([^"]+)"', answer.text)
    assert run is not None
    http.get(f"/flow-runs/{run[1]}/trace/stream")
    return run[1]


def told(http: httpx2.Client, run: str) -> tuple[str | None, str | None]:
    """The trace context in the trace and the stream, which agree."""
    summary = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
    assert None not in summary.values()
    started = http.get(f"/flow-runs/{run}/trace/stream").text.split("\n\n")[1]
    found = summary.get("traceParent"), summary.get("traceState")
    assert (f'"traceParent":"{found[0]}"' in started) is (found[0] is not None)
    return found


@pytest.mark.parametrize("call", ["execute", "jobs", "step"])
def test_the_runs_trace_names_the_callers_trace(http: httpx2.Client, call: str) -> None:
    headers = [("traceparent", PARENT), ("tracestate", STATE)]
    assert told(http, posted(http, call, headers)) == (PARENT, STATE)
    assert told(http, posted(http, call, headers[:1])) == (PARENT, None)
    assert told(http, posted(http, call, headers[1:])) == (None, None)
    assert told(http, posted(http, call, [])) == (None, None)


def test_our_client_says_which_trace_a_run_is_part_of(server: RunningServer, http: httpx2.Client) -> None:
    carrier = {"traceparent": PARENT, "tracestate": STATE, "baggage": "a=b"}
    with Client(server.key, base_url=server.base_url, org="acme", project="demo") as client:
        flow = client.flow("anything")
        done = flow.execute(trace_context=carrier)
        job = flow.execute_async(trace_context=carrier)
        job.wait(poll_interval=0.01)
        stepped = [step.execution_id for step in flow.steps(trace_context=carrier)]
        for run in (done.execution_id, job.execution_id, stepped[0]):
            assert told(http, run) == (PARENT, STATE)
            summary = client.run(run).trace().flow_run
            assert (summary.trace_parent, summary.trace_state) == (PARENT, STATE)
        assert told(http, flow.execute(trace_context={}).execution_id) == (None, None)
        with pytest.raises(ValueError, match="no W3C traceparent: 'x\\\\r\\\\ny: z'"):
            flow.execute(trace_context={"traceparent": "x\r\ny: z"})

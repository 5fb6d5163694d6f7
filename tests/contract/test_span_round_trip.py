"""Runs that are sent on to a Runglass: another project records the same run, their own project none."""

from decimal import Decimal
from typing import Any

import httpx2
import pytest

from runglass.config.settings import Price
from runglass.testing import RunningServer
from tests.contract.test_export import FAILING, SIDE_BY_SIDE
from tests.contract.test_span_export import send_to
from tests.contract.wire import WORDS, execute, http_for, ran
from tests.servers import server_with

PRICE = Price(input_per_mtok=Decimal("0.15"), output_per_mtok=Decimal("0.6"))


server = server_with(WORDS, SIDE_BY_SIDE, FAILING, prices={"echo": PRICE}, capture="full")


@pytest.fixture(scope="module", autouse=True)
def begun(server: RunningServer) -> None:
    """Runs are sent from now on."""
    server.call(server.runtime.store.span_cursors())


def send_to_project(server: RunningServer, project: str) -> httpx2.Client:
    """Sends all that has ended to a project of the same server: a client that reads there."""
    key = server.make_key("acme", project, "record")
    send_to(server, f"{server.address}/v1/traces", {"x-api-key": key})
    return http_for(server, server.make_key("acme", project, "admin"))


def spans_of(http: httpx2.Client, run_id: str) -> dict[str, dict[str, Any]]:
    document = http.get(f"/flow-runs/{run_id}/export?format=otlp").json()
    return {span["spanId"]: span for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]}


def usage(totals: dict[str, Any]) -> dict[str, Any]:
    """What a run adds up to in calls, tokens and money."""
    by_model = {
        model: (each["calls"], each.get("tokens"), Decimal(each.get("costUsd", "0")))
        for model, each in totals["byModel"].items()
    }
    counts = (totals["unmeteredCalls"], totals["unpricedCalls"])
    return {"byModel": by_model, "tokens": totals["tokens"], "cost": totals.get("costUsd"), "counts": counts}


@pytest.mark.parametrize("slug", ["words", "side-by-side", "failing"])
def test_another_project_records_the_same_run(server: RunningServer, http: httpx2.Client, slug: str) -> None:
    run_id = ran(http, slug, message="a bb ccc")
    with send_to_project(server, f"seen-{slug}") as seen:
        (recorded,) = seen.get("/flow-runs").json()["runs"]
        trace = seen.get(f"/flow-runs/{recorded['id']}/trace").json()
    whole = http.get(f"/flow-runs/{run_id}/trace").json()
    assert (recorded["triggerType"], recorded["flowSlug"]) == ("recorded", slug)
    assert recorded["recording"]["traceId"] == run_id.replace("-", "")
    assert recorded["recording"]["name"] == slug
    assert recorded["recording"]["entryEnded"]
    assert usage(trace["flowRun"]["totals"]) == usage(whole["flowRun"]["totals"])
    assert Decimal(trace["flowRun"]["totals"]["costUsd"]) > 0
    sent = spans_of(http, run_id)
    steps = {step["spanId"]: step for step in trace["steps"]}
    assert steps.keys() == sent.keys()
    for span_id, span in sent.items():
        step = steps[span_id]
        assert (step["name"], step.get("parentSpanId")) == (span["name"], span.get("parentSpanId"))
        assert step["kind"] == ("llm" if span["name"].startswith("chat ") else "chain")
        assert step["status"] == ("failed" if "status" in span else "completed")
    ours = [call for step in whole["steps"] for call in step.get("modelCalls", [])]
    theirs = [call for step in trace["steps"] for call in step.get("modelCalls", [])]
    assert sorted(map(told_of, theirs)) == sorted(map(told_of, ours)) != []


def told_of(call: dict[str, Any]) -> str:
    """What two projects must say alike of a call of a model."""
    shown = ("model", "modelUsed", "tokens", "costUsd", "finishReason", "request", "response", "startedAt")
    return repr([call.get(name) for name in shown])


def test_its_own_project_records_nothing_of_it(server: RunningServer, http: httpx2.Client) -> None:
    execute(http, "side-by-side")
    before = http.get("/flow-runs?limit=100").json()["runs"]
    send_to_project(server, "demo").close()
    assert http.get("/flow-runs?limit=100").json()["runs"] == before

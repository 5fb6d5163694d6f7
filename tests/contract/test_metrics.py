"""`/metrics`, on a listener of its own, and whether calls should come to a process."""

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runglass.errors import RunglassError, StoreError
from runglass.runtime.health import HealthCheck
from runglass.runtime.metrics.listener import CONNECTIONS, MetricsListener
from runglass.testing import RunningServer, running_server
from runglass.wire.admin_api import ROLES
from tests.contract import wire
from tests.faulty_store import FaultyStore
from tests.ports import free_port
from tests.servers import served, server_on
from tests.waiting import eventually

FAILS = """
slug: fails
steps:
  - {id: ask, type: llm, model: echo, prompt: "hello"}
  - {id: bad, type: code, code: 'raise ValueError("no")', retry: {max_attempts: 2, initial_delay_ms: 0}}
"""


class Watched:
    """A server and the address of its metrics."""

    def __init__(self, server: RunningServer, port: int) -> None:
        self.server = server
        self.port = port
        self.address = f"http://127.0.0.1:{port}"

    def samples(self) -> dict[str, float]:
        """Each sample of Runglass, by its name with labels."""
        answer = httpx2.get(f"{self.address}/metrics", timeout=wire.LONGEST_S)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return {
            f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    port = free_port()
    with server_on("sqlite", wire.ANYTHING, FAILS, metrics_port=port) as server:
        yield Watched(server, port)


@contextmanager
def beside(watched: Watched, **limits: float) -> Iterator[Watched]:
    """Another listener of the same server, that asks the store each time, with these limits."""
    check = HealthCheck(watched.server.runtime, wait_s=wire.LONGEST_S, every_s=0.0)
    listener = MetricsListener(watched.server.runtime, check, overview_s=0.0, **limits)

    async def closed() -> None:
        server.close()

    server = watched.server.call(asyncio.start_server(listener.serve, "127.0.0.1", 0))
    try:
        yield Watched(watched.server, server.sockets[0].getsockname()[1])
    finally:
        watched.server.call(closed())


def ask(port: int, sent: bytes) -> bytes:
    """What comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=wire.LONGEST_S) as connection:
        connection.sendall(sent)
        return wire.rest_of(connection)


def test_runs_attempts_appends_and_model_calls_are_counted(watched: Watched) -> None:
    before = watched.samples()
    key = watched.server.make_key("acme", "demo", "run")
    with wire.http_for(watched.server, key) as http:
        http.post("/seq/acme/demo/fails/execute", json={"parameters": {}})
    after = watched.samples()
    new = {name: value - before.get(name, 0.0) for name, value in after.items()}
    assert new["runglass_ended_runs_total[('status', 'failed')]"] == 1
    for outcome in ("completed", "retrying", "failed"):
        assert new[f"runglass_attempt_seconds_count[('outcome', '{outcome}')]"] == 1
    assert new["runglass_append_seconds_count"] > 2
    assert new["runglass_append_seconds_bucket[('le', '+Inf')]"] == new["runglass_append_seconds_count"]
    assert new["runglass_append_seconds_sum"] > 0
    assert new["runglass_model_calls_total[('outcome', 'ok'), ('provider', 'other')]"] == 1
    assert new["runglass_tokens_total[('kind', 'prompt'), ('provider', 'other')]"] > 0
    assert after["runglass_ready"] == after["runglass_store_up"] == after["runglass_bus_connected"] == 1


def test_requests_are_counted_by_endpoint_and_their_errors_by_code(watched: Watched) -> None:
    before = watched.samples()
    with wire.http_for(watched.server, watched.server.key) as http:
        wire.execute(http, "anything")
        assert http.get("/flow-runs/01a228b0-76cd-7abc-8def-0123456789ab/trace").status_code == 404
        assert http.get("/no-such-path").status_code == 404
    with wire.raw_connection(watched.server) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert wire.read_answer(connection)[0] == 400
    after = watched.samples()
    new = {name: int(value - before.get(name, 0.0)) for name, value in after.items()}
    called = "('endpoint', 'POST /api/v1/seq/{org}/{project}/{slug}/execute')"
    assert new[f"runglass_http_response_seconds_count[{called}, ('status', '2xx')]"] == 1
    assert new[f"runglass_http_response_seconds_bucket[{called}, ('le', '+Inf'), ('status', '2xx')]"] == 1
    assert new["runglass_http_response_seconds_count[('endpoint', 'other'), ('status', '4xx')]"] == 1
    for code in ("RUN_NOT_FOUND", "NOT_FOUND", "INVALID_REQUEST"):
        assert new[f"runglass_http_errors_total[('code', '{code}')]"] == 1


def test_what_waits_is_told_and_a_process_that_is_being_stopped_is_well_and_not_ready(
    watched: Watched,
) -> None:
    assert "runglass_unsent_runs" not in watched.samples(), "nothing is sent on"
    nobody = f"http://127.0.0.1:{free_port()}/"
    settings = {"metrics_port": (port := free_port()), "max_concurrent_runs": 1, "otlp_endpoint": nobody}
    with served(wire.ANYTHING, wire.ENDLESS, **settings) as (server, http):
        here, queued = Watched(server, port), "runglass_queued_seconds_count"
        server.call(server.runtime.store.span_cursors())
        endless, waits = wire.start(server, "endless"), wire.start(server, "anything")
        before = here.samples()
        assert (before["runglass_run_places"], before["runglass_active_runs"]) == (1, 1)
        wire.cancel(server, endless)
        eventually(lambda: here.samples()[queued] == before[queued] + 1)
        wire.events_of(http, waits)
        http.delete(f"/flow-runs/{waits}?purge=true").raise_for_status()
        server.call(server.runtime.store.span_cursors())
        with beside(here) as fresh:
            samples = fresh.samples()
        assert (samples["runglass_unsent_runs"], samples["runglass_unsent_deleted_runs_total"]) == (1, 1)
        assert 0 <= samples["runglass_unsent_oldest_seconds"] < wire.LONGEST_S
        server.call(server.runtime.engine.stop())
        for address in (server.address, here.address):
            assert httpx2.get(f"{address}/health", timeout=wire.LONGEST_S).status_code == 200
            answer = httpx2.get(f"{address}/ready", timeout=wire.LONGEST_S)
            assert answer.status_code == 503
            assert answer.json()["reasons"] == ["the process is being stopped"]


def test_no_label_is_of_a_run_a_flow_or_a_step(watched: Watched) -> None:
    key = watched.server.make_key("acme", "demo", "run")
    with wire.http_for(watched.server, key) as http:
        run = wire.execute(http, "anything")
    samples = watched.samples()
    labels = {
        re.findall(r"\('(\w+)', ", name)[0]
        for name in samples
        if name.startswith("runglass_") and "[" in name
    }
    known = "le outcome status provider project kind code endpoint reason signal task version"
    assert labels <= {*known.split()}
    text = " ".join(samples)
    assert not any(word in text for word in (run, "anything", "fails", key))


WELL = (200, "ready", None)


def ready(address: str, path: str = "ready") -> tuple[int, Any, Any]:
    answer = httpx2.get(f"{address}/{path}", timeout=wire.LONGEST_S)
    told = answer.json()
    return answer.status_code, told["status"], told.get("reasons")


def test_a_store_that_is_away_is_told_and_the_rest_goes_on(watched: Watched) -> None:
    sick = (503, "unready", ["the store cannot be read", "the store takes no writes"])
    assert ready(watched.server.address) == WELL
    with wire.http_for(watched.server, watched.server.key) as http:
        wire.execute(http, "anything")
    with beside(watched) as fresh:
        assert "runglass_queue_runs" in fresh.samples()
        with FaultyStore(watched.server.runtime.store) as faults:
            for name in ("overview", "project", "check_write"):
                faults.fail(name, StoreError("the store is away"))
            samples = fresh.samples()
            assert samples["runglass_store_up"] == samples["runglass_ready"] == 0
            assert "runglass_queue_runs" not in samples
            assert samples["runglass_append_seconds_count"] > 0
            assert ready(fresh.address) == sick
            # The server tries a write once a second at most.
            eventually(lambda: ready(watched.server.address) == sick)
        assert fresh.samples()["runglass_store_up"] == 1
        assert ready(fresh.address) == WELL
    eventually(lambda: ready(watched.server.address) == WELL)


def test_a_silent_store_is_told_within_a_second_and_kept_one_question_of_a_kind_waiting(
    watched: Watched,
) -> None:
    address, asks = watched.server.address, ("project", "check_write")
    silent = [f"the store has not answered a {what} for 0.8 s" for what in ("read", "write")]
    with FaultyStore(watched.server.runtime.store) as faults:
        asked = [faults.calls(ask) for ask in asks]
        held = [faults.hold(ask) for ask in asks]
        # A write is tried once a second at most; by the last answer another one would be due.
        eventually(lambda: ready(address) == (503, "unready", silent))
        for path, status in (("health", "unavailable"), ("ready", "unready")):
            assert ready(address, path) == (503, status, silent)
        assert [len(each) for each in asked] == [1, 1]
        for each in held:
            each.let_go()
        eventually(lambda: ready(address) == WELL)


def test_the_api_has_no_metrics_whatever_the_key(watched: Watched) -> None:
    for role in ROLES:
        with wire.http_for(watched.server, watched.server.make_key("acme", "demo", role)) as http:
            for path in (f"{watched.server.address}/metrics", "/metrics"):
                assert http.get(path).status_code == 404


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", 200),
        (b"GET /metrics/../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"\x16\x03\x01 \xff\xfe\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /health?x=1 HTTP/1.0\r\nHost: \x00\xff\r\n\r\n", 200),
    ],
)
def test_odd_requests_are_answered(watched: Watched, sent: bytes, status: int) -> None:
    head, _, body = ask(watched.port, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert (body == b"") if sent[:4] == b"HEAD" else (b"Content-Length: %d\r\n" % len(body) in head)


def test_who_talks_too_much_is_slow_or_comes_in_crowds_is_dropped(watched: Watched) -> None:
    assert ask(watched.port, b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000) == b""
    with beside(watched, request_s=0.2) as hasty:
        assert ask(hasty.port, b"GET /metrics HTTP/1.1\r\n") == b""
    crowd = [socket.create_connection(("127.0.0.1", watched.port)) for _ in range(CONNECTIONS)]
    try:
        assert ask(watched.port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
    finally:
        for each in crowd:
            each.close()
    # Until it has seen them leave, it has no place for others.
    eventually(lambda: ask(watched.port, b"GET /health HTTP/1.1\r\n\r\n"))
    assert watched.samples()["runglass_store_up"] == 1


def test_an_address_in_use_is_told_with_the_settings(watched: Watched) -> None:
    told = r"for metrics: .*; stop what uses .* metrics_host and metrics_port"
    with pytest.raises(RunglassError, match=told), running_server(metrics_port=watched.port):
        pytest.fail("it started")


def test_each_metric_of_the_dashboard_is_there(watched: Watched) -> None:
    page = msgspec.json.decode((Path(__file__).parents[2] / "deploy/grafana/runglass.json").read_bytes())
    text = httpx2.get(f"{watched.address}/metrics", timeout=wire.LONGEST_S).text
    parts = {"counter": [("total",)], "histogram": [("bucket",), ("count",), ("sum",)]}
    told = {
        "_".join((family.name, *part))
        for family in text_string_to_metric_families(text)
        for part in parts.get(family.type, [()])
    }
    expressions = [target["expr"] for panel in page["panels"] for target in panel.get("targets", [])]
    named = {name for each in expressions for name in re.findall(r"\b(?:runglass|process)_\w+", each)}
    assert len(expressions) > 15
    # A SQLite file does not have them; `test_store.py` has them on PostgreSQL.
    assert named - told == {f"runglass_store_pool_{what}" for what in ("busy", "open", "most")}
    ids = [panel["id"] for panel in page["panels"]]
    assert len(ids) == len(set(ids))

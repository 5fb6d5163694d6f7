"""What goes wrong outside of flows: paths, methods, sizes, a store that is away, bytes that are no HTTP."""

import logging
import socket

import httpx2
import pytest

from runglass.errors import StoreError
from runglass.testing import RunningServer, running_server
from tests.contract.wire import (
    ANYTHING,
    detail,
    execute,
    head_of,
    http_for,
    raw_connection,
    read_answer,
    refusal,
)
from tests.faulty_store import FaultyStore

EXECUTE = "/api/v1/seq/acme/demo/anything/execute"


@pytest.mark.parametrize(
    "path",
    [
        "/none",
        "/",
        "/flow-runs/x/trace/streams",
        "/flow-runs/x/steps/a",
        "/seq/acme/demo/words",
        "/seq/acme/demo/words/runs",
        "/seq/acme/demo/words/v1/runs/x/trace",
        "/flow-runs/a%2Fb/trace",
    ],
)
def test_a_path_that_does_not_exist(http: httpx2.Client, path: str) -> None:
    assert refusal(http.get(path)) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "path",
    ["/flow-runs", "/flow-runs/x", "/flow-runs/x/trace"]
    + [f"/seq/acme/demo/words/{call}" for call in ("execute", "jobs")],
)
def test_a_path_tells_the_methods_that_it_has(http: httpx2.Client, path: str) -> None:
    told = http.options(path)
    assert told.status_code == 204
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    answers = {method: http.request(method, path) for method in methods}
    refused = {method for method in methods if answers[method].status_code == 405}
    assert set(told.headers["allow"].split(", ")) == {*methods, "OPTIONS"} - refused
    for method in refused:
        assert answers[method].headers["allow"] == told.headers["allow"]
        assert method == "HEAD" or detail(answers[method])["code"] == "METHOD_NOT_ALLOWED"


def test_head_answers_like_get_without_the_body(http: httpx2.Client) -> None:
    run = execute(http, "anything")
    for path in ("/flow-runs", f"/flow-runs/{run}/trace"):
        head, get = http.head(path), http.get(path)
        assert head.status_code == get.status_code
        assert head.headers["content-length"] == get.headers["content-length"]
        assert head.content == b""


def test_a_whole_50_mb_body_gets_its_413(http: httpx2.Client) -> None:
    answer = http.post("/seq/acme/demo/anything/execute", content=b"x" * 50_000_000)
    assert refusal(answer) == (413, "REQUEST_TOO_LARGE")
    assert http.get("/flow-runs").status_code == 200


def test_a_chunked_body_is_refused_where_it_crosses_the_limit() -> None:
    with running_server(body_limit_bytes=100_000) as server, raw_connection(server) as connection:
        server.push(ANYTHING)
        connection.sendall(head_of(server, "POST", EXECUTE, "Transfer-Encoding: chunked"))
        chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
        for _ in range(11):
            connection.sendall(chunk)
        # No end of the body has been sent, and none is waited for.
        status, _, body = read_answer(connection)
        assert status == 413
        assert b"100,000 bytes" in body
        connection.sendall(chunk + b"0\r\n\r\n")
        connection.sendall(head_of(server, "POST", EXECUTE, "Content-Length: 2") + b"{}")
        assert read_answer(connection)[0] == 200


def test_a_chunked_body_within_the_limit_is_taken(http: httpx2.Client) -> None:
    answer = http.post(
        "/seq/acme/demo/anything/execute", content=iter([b'{"parameters":', b'{"n"', b": 1}}"])
    )
    assert answer.json()["result"] == {"n": 1}


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    with running_server() as server:
        with raw_connection(server) as connection:
            connection.sendall(head_of(server, "POST", EXECUTE, "Content-Length: 100") + b'{"para')
            connection.shutdown(socket.SHUT_RDWR)
        with http_for(server, server.key) as http:
            assert http.get("/flow-runs").status_code == 200
    assert caplog.records == []


def test_a_store_that_is_away_is_503_everywhere_and_its_place_stays_secret(
    server: RunningServer, http: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    away = StoreError("the store '/secret/place' cannot be used: disk I/O error")
    for method, path in [
        ("find_key", "/flow-runs"),
        ("runs", "/flow-runs"),
        ("trace", "/flow-runs/x/trace"),
        ("run", "/flow-runs/x/steps/s/trace"),
        ("create_run", "/seq/acme/demo/anything/execute"),
        ("project", f"{server.address}/health"),
    ]:
        with FaultyStore(server.runtime.store) as faults:
            faults.fail(method, away)
            answer = http.post(path, json={}) if path.endswith("execute") else http.get(path)
        assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "UNAVAILABLE")
        assert "/secret" not in answer.text
        assert answer.headers["x-request-id"] in caplog.messages[-1]
        assert "/secret/place" in "".join(caplog.messages[-2:])
        caplog.clear()
    assert http.get(f"{server.address}/health").status_code == 200


def test_a_fault_is_500_with_nothing_of_the_inside_and_a_log_entry_to_find(
    http: httpx2.Client, faults: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    faults.fail("runs", ZeroDivisionError("a secret of the inside"))
    answer = http.get("/flow-runs")
    error = detail(answer)
    assert (answer.status_code, error["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in answer.text
    request_id = answer.headers["x-request-id"]
    assert request_id in error["message"]
    entry = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert request_id in entry.getMessage()
    assert entry.exc_info is not None


def test_a_stream_whose_store_goes_away_ends_without_a_last_event(
    http: httpx2.Client, faults: FaultyStore
) -> None:
    # Not what a test before has failed with: that would be answered as a repeat of it.
    run = execute(http, "anything", message="a stream that breaks off")
    faults.fail("events", StoreError("the store cannot be used: disk I/O error"))
    answer = http.get(f"/flow-runs/{run}/trace/stream")
    assert (answer.status_code, answer.text) == (200, "retry: 1000\n\n")

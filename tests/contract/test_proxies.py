"""The proxies of `deploy/` in front of a server: what they let through, and what they hold."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract import wire
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"
NGINX = """
user root;
daemon off;
pid nginx.pid;
error_log error.log;
events {}
http {
    access_log off;
    client_body_temp_path bodies;
    proxy_temp_path answers;
    include site.conf;
}
"""
CONNECTIONS = 4
"""The connections of one address, in place of what the file says."""


def changed(name: str, changes: dict[str, str]) -> str:
    """The file in `deploy/`, for the ports of a test and with less patience."""
    text = (DEPLOY / name).read_text("utf-8")
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


def nginx(folder: Path, port: int, server: str) -> list[str]:
    """Its configuration, and the command that runs it."""
    changes = {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "127.0.0.1:8080": server,
        "client_header_timeout 10s": "client_header_timeout 1s",
        "limit_conn runglass_addresses 200": f"limit_conn runglass_addresses {CONNECTIONS}",
    }
    (folder / "site.conf").write_text(changed("nginx.conf", changes), "utf-8")
    (folder / "nginx.conf").write_text(NGINX, "utf-8")
    return ["-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]


def caddy(folder: Path, port: int, server: str) -> list[str]:
    """Its configuration, and the command that runs it."""
    changes = {
        ":80 {": f"http://127.0.0.1:{port} {{",
        "127.0.0.1:8080": server,
        "\tservers {": "\tadmin off\n\tservers {",
        "read_header 10s": "read_header 1s",
    }
    (folder / "Caddyfile").write_text(changed("Caddyfile", changes), "utf-8")
    return ["run", "--config", str(folder / "Caddyfile")]


PROXIES = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(scope="module", params=PROXIES)
def port(
    request: pytest.FixtureRequest, server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of a proxy before the server."""
    name: str = request.param
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip(f"{name} was not found; on Debian: apt-get install {name}")
    folder, port = tmp_path_factory.mktemp(name), free_port()
    arguments = PROXIES[name](folder, port, server.address.removeprefix("http://"))
    environment = os.environ | dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
    with (
        (folder / "output.log").open("wb") as log,
        subprocess.Popen(
            [program, *arguments], cwd=folder, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            eventually(lambda: process.poll() is not None or accepts(port))
            assert process.poll() is None, (folder / "output.log").read_text("utf-8")
            yield port
        finally:
            process.terminate()


def accepts(port: int) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), wire.LONGEST_S):
        return True
    return False


@pytest.fixture
def http(server: RunningServer, port: int) -> Iterator[httpx2.Client]:
    with wire.http_at(f"http://127.0.0.1:{port}", server.key) as client:
        yield client


def connected(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), wire.LONGEST_S)
    connection.sendall(sent)
    return connection


def test_a_call_an_error_and_a_trace_are_those_of_the_server(http: httpx2.Client) -> None:
    run = wire.execute(http, "anything", parameters={"text": "ü" * 200_000})
    assert wire.trace_of(http, run)["flowRun"]["status"] == "completed"
    none = http.get("/flow-runs/none", headers={"X-Request-ID": "mine"})
    assert (none.status_code, none.headers["x-request-id"]) == (404, "mine")


def test_events_of_a_stream_leave_at_once_and_a_caller_that_has_left_is_noticed(
    http: httpx2.Client, server: RunningServer
) -> None:
    run = wire.start(server, "endless")
    eventually(lambda: wire.requests_in(server) == 0)
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
        lines = stream.iter_lines()
        assert "event: run_started" in lines
        assert wire.requests_in(server) == 1
    eventually(lambda: wire.requests_in(server) == 0)
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
        lines = stream.iter_lines()
        assert "event: run_started" in lines
        wire.cancel(server, run)
        assert "event: flow_cancelled" in lines


def test_spans_are_taken_in_and_too_large_bodies_are_not(http: httpx2.Client, port: int) -> None:
    address = f"http://127.0.0.1:{port}/v1/traces"
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"resourceSpans": []}).encode()
    assert http.post(address, headers=headers, content=body + b" " * 9_000_000).status_code == 200
    assert http.post(address, headers=headers, content=b" " * 17_000_000).status_code == 413


def test_a_head_that_is_too_large_or_does_not_end_never_gets_to_the_server(
    port: int, server: RunningServer
) -> None:
    begun = b"GET /health HTTP/1.1\r\nHost: a\r\n"
    with connected(port, begun + b"X: " + b"b" * 70_000 + b"\r\n\r\n") as large:
        assert wire.rest_of(large).split()[1] in (b"400", b"431")
    with connected(port, begun) as slow:
        wire.rest_of(slow)
    assert wire.requests_in(server) == 0


@pytest.mark.parametrize("port", ["nginx"], indirect=True)
def test_nginx_counts_connections_of_an_address_and_takes_in_slow_bodies(
    http: httpx2.Client, port: int, server: RunningServer
) -> None:
    """Caddy does neither by itself."""
    head = b"POST /api/v1/seq/acme/demo/anything/execute HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(connected(port, head))
        eventually(lambda: http.get("/flow-runs").status_code == 429)
        eventually(lambda: wire.requests_in(server) == 0)
    eventually(lambda: http.get("/flow-runs").status_code == 200)

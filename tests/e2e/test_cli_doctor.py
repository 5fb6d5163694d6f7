"""`runglass doctor`: what arrives, what is left of it, and what is said of each thing that is wrong."""

import ssl
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest

from runglass import Client
from runglass.cli.exit_codes import Exit
from runglass.client.api.admin import Management
from runglass.testing import RunningServer
from tests.e2e.conftest import Printed
from tests.http_server import Reply, answering, listening
from tests.servers import server_with
from tests.unit.bus.test_carriers import TLS

server = server_with()


class Doctor:
    """The command in an environment that sends to the server with a key of a role."""

    def __init__(self, server: RunningServer, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
        self._printed = printed
        self._set = monkeypatch.setenv
        self.server = server
        key = server.make_key("acme", "demo", "record")
        self._set("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{key}")
        self._set("OTEL_EXPORTER_OTLP_ENDPOINT", server.address)
        self._set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")

    def finds(self, problem: str, remedy: str, **variables: str) -> None:
        for name, value in variables.items():
            self._set(name, value)
        told = self._printed("doctor", code=Exit.FAILED).out
        first, second = told.splitlines()[-2:]
        assert (problem in first, remedy in second) == (True, True), told

    def is_well(self, *arguments: str, **variables: str) -> str:
        for name, value in variables.items():
            self._set(name, value)
        return self._printed("doctor", *arguments).out


@pytest.fixture
def doctor(
    server: RunningServer, connected: None, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> Doctor:
    return Doctor(server, printed, monkeypatch)


def test_with_a_key_that_may_delete_a_call_of_a_model_arrives_and_nothing_is_left(
    doctor: Doctor, client: Client
) -> None:
    told = doctor.is_well()
    assert "it was read back as a run of runglass-doctor: 1 step, 17 tokens" in told
    assert "the probe is deleted" in told
    assert Management(client).own_flows().flows == []
    assert client.runs(query="kind:plain,recorded").runs == []


def test_with_another_key_the_probe_is_one_that_lists_do_not_show(doctor: Doctor, client: Client) -> None:
    told = doctor.is_well("--api-key", doctor.server.make_key("acme", "demo", "run"))
    assert "it was read back as a run of runglass-doctor: 1 step" in told
    assert "the probe is deleted" not in told
    assert client.runs().runs == []
    client.run(client.runs(query="kind:plain").runs[0].id).delete()
    Management(client).delete("acme", "demo", "runglass-doctor")


def test_with_a_key_that_can_only_send_the_probe_is_not_read_back(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNGLASS_API_KEY")
    key = doctor.server.make_key("acme", "probes", "record")
    told = doctor.is_well(OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{key}")
    assert "it was not read back: the key can only send" in told


def test_without_variables_it_tries_the_server_that_watch_would_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "the probe is deleted" in printed("doctor").out
    assert list(tmp_path.iterdir()) == []


NOBODY = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("variable", "value", "problem", "remedy"),
    [
        ("ENDPOINT", "{address}/v1/traces", "makes /v1/traces/v1/traces", "set it to {address}"),
        ("ENDPOINT", "{address}/nowhere", "there is no path", "name its address alone"),
        ("ENDPOINT", NOBODY, "cannot be reached", "is the server started"),
        ("ENDPOINT", "https://{host}", "", "the server speaks http: write {address}"),
        ("ENDPOINT", "127.0.0.1:8080", "is no address", "write it like http://"),
        ("HEADERS", "x-runglass-flow=a", "has no key", "role record"),
        ("HEADERS", "x-api-key=nk_live_0_0", "unknown or revoked", "use a key that exists"),
        ("HEADERS", "x-api-key={reads}", "", "use a key with the role record"),
        ("PROTOCOL", "grpc", "is grpc, which is not tried", "set OTEL_EXPORTER_OTLP_PROTOCOL=http/"),
        ("OTEL_SDK_DISABLED", "true", "send no traces", "unset OTEL_SDK_DISABLED"),
        ("OTEL_TRACES_EXPORTER", "console", "send no traces", "unset OTEL_TRACES_EXPORTER"),
        ("OTEL_TRACES_SAMPLER", "always_off", "send no traces", "unset OTEL_TRACES_SAMPLER"),
    ],
)
def test_variables_that_cannot_work_are_found(
    doctor: Doctor, variable: str, value: str, problem: str, remedy: str
) -> None:
    name = variable if variable.startswith("OTEL_") else f"OTEL_EXPORTER_OTLP_{variable}"
    address = doctor.server.address
    known = {"address": address, "host": address.partition("//")[2]}
    given = value.format(**known, reads=doctor.server.make_key("acme", "demo", "read"))
    doctor.finds(problem, remedy.format(**known), **{name: given})


def test_without_otlp_variables_it_finds_what_is_wrong_with_the_address_and_the_key_of_a_recorder(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS")
    address = doctor.server.address
    doctor.finds("cannot be reached", "is the server started", RUNGLASS_BASE_URL=NOBODY)
    https = address.replace("http:", "https:")
    doctor.finds("", f"the server speaks http: write {address}", RUNGLASS_BASE_URL=https)
    doctor.finds("unknown", "a key that exists", RUNGLASS_BASE_URL=address, RUNGLASS_API_KEY="nk_live_0_0")
    told = doctor.is_well(RUNGLASS_API_KEY=doctor.server.make_key("acme", "probes", "record"))
    assert "it was not read back: the key can only send" in told


def test_an_http_address_of_an_https_server_is_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    secure = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    # Whoever trusts no certificate of ours goes away, which is no error.
    monkeypatch.setattr(secure, "handle_error", Mock())
    with listening(secure) as port:
        there = f"127.0.0.1:{port}"
        remedy = f"the server speaks https: write https://{there}"
        doctor.finds("", remedy, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{there}")
        remedy = "name the certificate's authority in SSL_CERT_FILE"
        doctor.finds("CERTIFICATE_VERIFY", remedy, OTEL_EXPORTER_OTLP_ENDPOINT=f"https://{there}")


def test_a_clock_that_is_far_off_is_told(doctor: Doctor) -> None:
    with answering(lambda *_: Reply(200, {"Date": "Mon, 01 Jan 2001 00:00:00 GMT"})) as address:
        told = doctor.is_well(
            "--api-key", doctor.server.make_key("acme", "demo", "record"), OTEL_EXPORTER_OTLP_ENDPOINT=address
        )
    assert "this machine's clock is" in told
    assert "ahead of the server's" in told

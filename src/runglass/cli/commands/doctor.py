"""`runglass doctor`: sends a probe as a program would, reads it back, and explains what is wrong.

With a key of the role `admin` the probe is a call of a model, and deleted; with any other one it is a plain
trace, which lists do not show and which is deleted after a day.
"""

import os
import secrets
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import NoneType
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import click
from rich.text import Text

from runglass.cli import options
from runglass.cli.backends.local_store import DataFolder
from runglass.cli.backends.receiver import PROXIES, receiver, role_of
from runglass.cli.backends.server import Server
from runglass.cli.exit_codes import Exit
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import clean, log_to_stderr, note, stdout, write_line
from runglass.client import Client
from runglass.client.api.admin import Management
from runglass.client.core.connection import API_PATH, ServerConnection
from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import Answer, Outcome, error_of
from runglass.errors import RunglassError

TRACES = "/v1/traces"
FLOW = "runglass-doctor"
TIMEOUT_S = 10.0
MOST_SKEW_S = 60.0
NEWEST = 50
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
REMEDIES = {
    400: "is it an https server at this http address, or does a proxy change what it passes on?",
    401: "use a key that exists and is not revoked: runglass keys create ORG/PROJECT --role record",
    403: "use a key with the role record, run or admin",
    404: "{way.told_by} has another path than the server: name its address alone, http://HOST:PORT",
}
"""By the status of the server's answer."""


class Problem(RunglassError):
    """What is wrong; `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


class Way(NamedTuple):
    """How a program in this environment sends: the address of its traces, its headers, and who says so."""

    url: str
    protocol: str
    headers: dict[str, str]
    told_by: str

    @property
    def key(self) -> str | None:
        shown = self.headers.get("authorization") or self.headers.get("x-api-key")
        return shown.rpartition(" ")[2] if shown else None

    @property
    def origin(self) -> str:
        return "://".join(urlsplit(self.url)[:2])


@click.command()
@options.server
def doctor(server: Server) -> None:
    """Send a probe as a program's SDK would, read it back, and say what is wrong. Exit code 1 if anything is.

    It goes where OTEL_EXPORTER_OTLP_ENDPOINT says, else to --base-url, else to the server of the data folder,
    or one that is started for it.
    """
    log_to_stderr("error")
    settings = server.folder.settings()
    try:
        way = way_of(os.environ)
        if way is not None:
            key = server.api_key or way.key
            with Server(server.base_url or way.origin, key, server.folder).connect() as client:
                _examine(way, client)
        elif server.base_url and server.folder == DataFolder():
            with server.connect() as client:
                used = client._transport.endpoint
                url, headers = used.base_url.removesuffix(API_PATH), {"x-api-key": used.api_key}
                _examine(Way(f"{url}{TRACES}", "http/protobuf", headers, "the base URL"), client)
        else:
            with TemporaryDirectory(prefix="runglass-") as empty:
                if not server.base_url and settings.postgres is None and not settings.database.exists():
                    # A probe makes no data folder.
                    server = server._replace(folder=DataFolder(Path(empty)), project=None)
                with receiver(server) as found:
                    headers = {"authorization": f"Bearer {found.record_key}"}
                    told_by = "a server for this command" if found.is_own else "the running server"
                    _examine(Way(f"{found.address}{TRACES}", "http/protobuf", headers, told_by), found.client)
    except Problem as problem:
        _say("✗", "bold red", str(problem))
        write_line(stdout(), f"  → {problem.remedy}")
        raise click.exceptions.Exit(Exit.FAILED) from problem


def way_of(environ: Mapping[str, str]) -> Way | None:
    """How SDKs read the variables; None without an endpoint. Raises Problem for what cannot work."""
    name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    url = environ.get(name, "").strip()
    if not url and (url := environ.get(name := "OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()):
        if urlsplit(url).path.rstrip("/").endswith(TRACES):
            raise Problem(
                f"{name} is {url}: SDKs append {TRACES} to it, which makes {TRACES}{TRACES}",
                f"set it to {url.rstrip('/').removesuffix(TRACES)}",
            )
        url = f"{url.rstrip('/')}{TRACES}"
    if not url:
        return None
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise Problem(f"{name} is no address: {url}", "write it like http://127.0.0.1:8080")
    off = {
        "OTEL_SDK_DISABLED": environ.get("OTEL_SDK_DISABLED", "").lower() == "true",
        "OTEL_TRACES_EXPORTER": "otlp" not in environ.get("OTEL_TRACES_EXPORTER", "otlp"),
        "OTEL_TRACES_SAMPLER": environ.get("OTEL_TRACES_SAMPLER") in ("always_off", "parentbased_always_off"),
    }
    for variable, is_off in off.items():
        if is_off:
            raise Problem(f"with {variable}={environ[variable]} SDKs send no traces", f"unset {variable}")
    text = environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    pairs = (each.partition("=") for each in text.split(",") if "=" in each)
    headers = {key.strip().lower(): unquote(value.strip()) for key, _, value in pairs}
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol == "grpc":
        raise Problem(
            "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, which is not tried",
            "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf and name the port of HTTP, which every server has",
        )
    way = Way(url, protocol or "", headers, name)
    if not way.key:
        raise Problem(
            "OTEL_EXPORTER_OTLP_HEADERS has no key",
            'set it to "authorization=Bearer%20$RUNGLASS_API_KEY", with a key of the role record',
        )
    return way


def _examine(way: Way, reader: Client) -> None:
    """Sends the probe and reads it back. Raises Problem, and as clients do."""
    _say("·", "dim", f"to {way.url}, by {way.told_by}")
    if proxies := [name for name in PROXIES if os.environ.get(name)]:
        _say("·", "dim", f"{' and '.join(proxies)} may lead through a proxy; NO_PROXY names what does not")
    if not way.protocol:
        _say("!", "yellow", "without OTEL_EXPORTER_OTLP_PROTOCOL some SDKs speak gRPC: set http/protobuf")
    try:
        role, unread = role_of(reader), "the key can only send; --api-key takes another one"
    except RunglassError as error:
        # Sending finds out more of what is wrong.
        role, unread = "record", str(error)
    trace_id, is_deleted = secrets.token_hex(16), role == "admin"
    body = probe(trace_id, service=os.environ.get("OTEL_SERVICE_NAME", FLOW), has_call=is_deleted)
    began_s = time.monotonic()
    date = _send(way, body)
    took = formatting.duration(round((time.monotonic() - began_s) * 1000))
    if date is not None and abs(skew_s := time.time() - date.timestamp()) > MOST_SKEW_S:
        away = f"{formatting.duration(round(abs(skew_s) * 1000))} {'ahead of' if skew_s > 0 else 'behind'}"
        _say("!", "yellow", f"this machine's clock is {away} the server's: times of runs will be off")
    _say("✓", "green", f"the probe was accepted in {took}")
    if role == "record":
        _say("·", "dim", f"it was not read back: {unread}")
        return
    kind = "recorded" if is_deleted else "plain"
    newest = reader.runs(query=f"kind:{kind}", limit=NEWEST).runs
    run = next((each for each in newest if each.recording and each.recording.trace_id == trace_id), None)
    if run is None:
        raise Problem(
            "the probe was accepted and cannot be found",
            "do the two keys, of OTEL_EXPORTER_OTLP_HEADERS and RUNGLASS_API_KEY, belong to one project?",
        )
    tokens = run.totals.tokens if run.totals is not None else None
    used = "" if tokens is None else f", {formatting.counted(tokens.total, 'token')}"
    steps = formatting.counted(run.step_count or 0, "step")
    _say("✓", "green", f"it was read back as a run of {run.flow_slug}: {steps}{used}")
    if is_deleted:
        reader.run(run.id).delete()
        if run.flow_slug == FLOW:
            own = (manager := Management(reader)).own_flows()
            manager.delete(own.org, own.project, FLOW)
        _say("✓", "green", "the probe is deleted")
    note("programs can send: runglass watch -- python my_agent.py")


def probe(trace_id: str, *, service: str, has_call: bool) -> bytes:
    """A request with one span, a call of a model or a plain one."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add()
    spans.resource.attributes.add(key="service.name").value.string_value = service
    now = time.time_ns()
    span = spans.scope_spans.add().spans.add(
        trace_id=bytes.fromhex(trace_id),
        span_id=secrets.token_bytes(8),
        name="chat probe" if has_call else "probe",
        start_time_unix_nano=now,
        end_time_unix_nano=now,
    )
    if has_call:
        span.attributes.add(key="gen_ai.operation.name").value.string_value = "chat"
        span.attributes.add(key="gen_ai.request.model").value.string_value = "probe"
        span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 12
        span.attributes.add(key="gen_ai.usage.output_tokens").value.int_value = 5
    return bytes(request.SerializeToString())


def _request(way: Way, body: bytes | None = None) -> Outcome:
    """What came of a request: a GET without a body."""
    from runglass.client.transport.blocking import SyncTransport

    server = ServerConnection(base_url=way.origin, api_key=way.key or "", timeout_s=TIMEOUT_S, max_retries=0)
    call: RequestSpec[None] = RequestSpec(
        method="GET" if body is None else "POST",
        path=urlsplit(way.url).path,
        answer=NoneType,
        headers=way.headers | {"Content-Type": "application/x-protobuf"},
        body=body,
    )
    with closing(SyncTransport(server)) as transport:
        return transport.outcome(call, timeout=TIMEOUT_S)


def _send(way: Way, body: bytes) -> datetime | None:
    """What time it is for a server that has stored the probe, if it says. Raises Problem."""
    outcome = _request(way, body)
    if not isinstance(outcome, Answer):
        raise Problem(outcome.reason, _remedy_of_loss(way, outcome.reason))
    if outcome.status != 200:
        remedy = REMEDIES.get(outcome.status, "look into the log of the server or of its proxy")
        raise Problem(str(error_of(f"POST {urlsplit(way.url).path}", outcome)), remedy.format(way=way))
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    told = ExportTraceServiceResponse.FromString(bytes(outcome.body)).partial_success
    if told.rejected_spans:
        raise Problem(f"the server has rejected the probe: {told.error_message}", "see the reason")
    try:
        return parsedate_to_datetime(outcome.headers.get("date", ""))
    except ValueError:
        return None


def _remedy_of_loss(way: Way, reason: str) -> str:
    scheme, host = urlsplit(way.url).scheme, urlsplit(way.url).netloc
    if UNTRUSTED in reason:
        return "name the certificate's authority in SSL_CERT_FILE and OTEL_EXPORTER_OTLP_CERTIFICATE"
    other = "https" if scheme == "http" else "http"
    there = _request(way._replace(url=f"{other}://{host}/health"))
    if isinstance(there, Answer) or UNTRUSTED in there.reason:
        return f"the server speaks {other}: write {other}://{host}"
    if urlsplit(way.url).port == 4317:
        return "4317 is the port of gRPC: name the port of HTTP"
    if any(map(os.environ.get, PROXIES)):
        return f"does the proxy let it through? NO_PROXY={urlsplit(way.url).hostname} goes around it"
    return "is the server started (runglass serve), and are host and port right?"


def _say(mark: str, style: str, text: str) -> None:
    write_line(stdout(), Text.assemble((f"{mark} ", style), clean(text)))

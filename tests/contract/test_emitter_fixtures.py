"""What libraries have sent once, taken in again: the runs tell what the model server's ledger says."""

import base64
import gzip
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runglass.testing import ORG, PROJECT, RunningServer
from tests.emitters import fixtures
from tests.emitters.capture import FLOW, Export, flow_of, send
from tests.emitters.comparison import Shortfall, compare, shortfalls
from tests.emitters.readback import Api
from tests.emitters.table import ROWS
from tests.servers import server_with

KNOWN = shortfalls()
REQUESTS: dict[str, tuple[Any, str, str, str]] = {
    "traces": (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans"),
    "logs": (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records"),
}


# One of its own, which keeps all content.
server = server_with(capture="full")


def test_every_row_and_every_shortfall_has_fixtures() -> None:
    assert fixtures.names() == sorted(row.name for row in ROWS)
    cases = {(row, case.name) for row in fixtures.names() for case in fixtures.read(row).cases}
    assert set(KNOWN) <= cases


@pytest.mark.parametrize("row", fixtures.names())
def test_the_totals_of_the_runs_are_those_of_the_ledger(server: RunningServer, row: str) -> None:
    """Each case has a flow of its own. What a row is known to lack is in `tests/emitters/shortfalls.toml`."""
    key, api = server.make_key(ORG, PROJECT, "record"), Api(server.address, server.key)
    wrong: list[str] = []
    for case in fixtures.read(row).cases:
        flow = flow_of(row, case.name)
        refused = _sent(case.exports, server, key, flow)
        found = compare(case.name, case.calls, refused, api.told(flow), KNOWN.get((row, case.name)))
        wrong += [f"{case.name}: {each}" for each in found]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("row", fixtures.names())
def test_neither_order_nor_encoding_nor_repeats_change_a_run(server: RunningServer, row: str) -> None:
    """In a project of its own: each span and log record by itself as JSON, from the last to the first.

    Then all again, as it was: this writes no event.
    """
    key, api = (
        server.make_key("backwards", row, "record"),
        Api(server.address, server.make_key("backwards", row)),
    )
    wrong: list[str] = []
    for case in fixtures.read(row).cases:
        flow = flow_of(row, case.name)
        _sent(_backwards(case.exports), server, key, flow)
        heads = _heads(server, api, flow)
        _sent(case.exports, server, key, flow)
        if _heads(server, api, flow) != heads:
            wrong.append(f"{case.name}: events were written for what was known")
        known = KNOWN.get((row, case.name), Shortfall(row, case.name, ""))._replace(refused=0)
        found = compare(case.name, case.calls, [], api.told(flow), known)
        wrong += [f"{case.name}: {each}" for each in found]
    assert not wrong, "\n".join(wrong)


def _sent(exports: Iterable[Export], server: RunningServer, key: str, flow: str) -> list[str]:
    """The answers that refuse something."""
    refused = []
    for export in exports:
        headers = {"Authorization": f"Bearer {key}", FLOW: flow}
        status, _, body = send(export, server.address, headers)
        assert status == 200, f"{flow}: {export.path}"
        if body:
            refused.append(f"{export.path}: {body!r}")
    return refused


def _heads(server: RunningServer, api: Api, flow: str) -> list[int]:
    runs = [server.call(server.runtime.store.run(run["id"])) for run in api.runs(flow)]
    return [run.head for run in runs if run is not None]


def _backwards(exports: list[Export]) -> Iterator[Export]:
    for path, headers, body in reversed(exports):
        signal = path.rpartition("/")[2]
        if signal not in REQUESTS:
            continue
        request, resources, scopes, items = REQUESTS[signal]
        plain = gzip.decompress(body) if "Content-Encoding" in headers else body
        for resource in reversed(getattr(request.FromString(plain), resources)):
            for scope in reversed(getattr(resource, scopes)):
                for item in reversed(getattr(scope, items)):
                    one = request()
                    around = getattr(one, resources).add(resource=resource.resource)
                    getattr(getattr(around, scopes).add(scope=scope.scope), items).append(item)
                    content = MessageToDict(one, use_integers_for_enums=True)
                    _spell_ids(content)
                    yield Export(path, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _spell_ids(content: Any) -> None:
    """OTLP's JSON has ids as hexadecimal numbers, where that of protobuf has base64."""
    for name, value in content.items() if isinstance(content, dict) else enumerate(content):
        if name in ("traceId", "spanId", "parentSpanId"):
            content[name] = base64.b64decode(value).hex()
        elif isinstance(value, (dict, list)):
            _spell_ids(value)

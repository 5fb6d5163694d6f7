"""OTLP over real sockets: encodings, codings, keys and roles, and what a sender is told of refusals."""

import asyncio
import base64
import gzip
import json
import threading
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from backports import zstd
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from runglass.errors import StoreError, api_error
from runglass.log.measurements import measured
from runglass.recording.received import Refused
from runglass.recording.span_worker import PIECE, Piece, ReadSpan
from runglass.server.endpoints import ENDPOINTS
from runglass.store.records import Project
from runglass.testing import RunningServer, running_server
from runglass.wire.admin_api import ROLES, digest_of
from tests.contract.wire import LONGEST_S, detail, http_for, raw_connection, read_answer, refusal
from tests.unit.recording.test_otlp import SPAN, TRACE, as_json, broken, frame, logs, pair, span, traces

LIMIT = 200_000
BOMB_BYTES = 64 << 20
PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
GZIP = {"Content-Encoding": "gzip"}
BODY = traces(span(1), span(2)).SerializeToString()
ALIASES = ("", "/otel", "/api/public/otel", "/v1/private/otel")
TRACES = [*(f"{prefix}/v1/traces" for prefix in ALIASES), "/", "/otel"]
LOGS = [f"{prefix}/v1/logs" for prefix in ALIASES]
METRICS = [f"{prefix}/v1/metrics" for prefix in ALIASES]


class Recorded:
    """In the place of the runtime's recordings: keeps what comes, or does as a test says."""

    def __init__(self) -> None:
        self.items: list[ReadSpan] = []
        self.flows: list[str] = []
        self.projects: list[str] = []
        self.refused: list[Refused] = []
        self.fault: Exception | None = None

    async def record(self, project: Project, piece: Piece) -> Counter[str]:
        if self.fault is not None:
            raise self.fault
        self.projects.append(project.name)
        self.flows += [span.slug for span in piece.spans[:1]]
        self.items += piece.spans
        return Counter(piece.refused) + Counter(dict(self.refused))

    @property
    def span_ids(self) -> list[int]:
        return [int(item.head.span_id, 16) for item in self.items]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(otlp_limit_bytes=LIMIT) as running:
        yield running


@pytest.fixture
def recorded(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    made = Recorded()
    monkeypatch.setattr(server.runtime, "recordings", made)
    return made


@pytest.fixture
def sender(server: RunningServer) -> Iterator[httpx2.Client]:
    """A program with a key that may only send."""
    headers = {"Authorization": f"Bearer {server.make_key('acme', 'demo', 'record')}"}
    with httpx2.Client(base_url=server.address, headers=headers, timeout=LONGEST_S) as client:
        yield client


def partial_success(answer: httpx2.Response) -> tuple[int, str]:
    """How much was rejected, and why, as a client of protobuf reads it."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-protobuf"
    told = ExportTraceServiceResponse.FromString(answer.content).partial_success
    return told.rejected_spans, told.error_message


def test_all_paths_of_this_page_are_those_of_the_table() -> None:
    sent = {each.path for each in ENDPOINTS if each.access == "record"}
    assert sent == {*TRACES, *LOGS, *METRICS}


@pytest.mark.parametrize("path", [*TRACES, "/v1/traces/", "//v1/traces", "/otel/"])
def test_traces_are_taken_on_every_path(sender: httpx2.Client, recorded: Recorded, path: str) -> None:
    answer = sender.post(f"{sender.base_url}{path}" if "//" in path else path, content=BODY, headers=PROTOBUF)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert recorded.span_ids == [1, 2]
    assert recorded.projects == ["demo"]


@pytest.mark.parametrize("path", LOGS)
def test_logs_are_taken_on_every_path(sender: httpx2.Client, recorded: Recorded, path: str) -> None:
    data = logs(trace_id=TRACE, span_id=SPAN, body={"string_value": "x"})
    assert sender.post(path, content=data.SerializeToString(), headers=PROTOBUF).status_code == 200
    answer = sender.post(path, json=as_json(data))
    assert (answer.status_code, answer.json()) == (200, {})
    assert [item.head.name for item in recorded.items] == [None, None]


@pytest.mark.parametrize("path", METRICS)
def test_metrics_are_answered_and_nothing_is_kept(
    sender: httpx2.Client, recorded: Recorded, path: str
) -> None:
    assert partial_success(sender.post(path, content=b"\x0a\x00")) == (0, "")
    answer = sender.post(path, json={"resourceMetrics": []})
    assert (answer.status_code, answer.json()) == (200, {})
    assert recorded.items == []


def test_without_a_content_type_it_is_protobuf(sender: httpx2.Client, recorded: Recorded) -> None:
    assert partial_success(sender.post("/v1/traces", content=BODY)) == (0, "")
    assert recorded.span_ids == [1, 2]


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_answered_with_json(sender: httpx2.Client, recorded: Recorded, media_type: str) -> None:
    body = json.dumps(as_json(traces(span(1))))
    answer = sender.post("/v1/traces", content=body, headers={"Content-Type": media_type})
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"] == "application/json"
    assert recorded.span_ids == [1]


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/grpc", "application/x-www-form-urlencoded"]
)
def test_another_content_type_is_refused(sender: httpx2.Client, recorded: Recorded, media_type: str) -> None:
    answer = sender.post("/v1/traces", content=BODY, headers={"Content-Type": media_type})
    assert refusal(answer) == (415, "INVALID_REQUEST")
    assert media_type in detail(answer)["message"]
    assert recorded.items == []


def test_the_header_names_the_flow(sender: httpx2.Client, recorded: Recorded) -> None:
    sender.post("/v1/traces", content=BODY, headers={"x-runglass-flow": "support"})
    sender.post("/v1/traces", content=BODY)
    assert recorded.flows == ["support", "shop"]


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


CODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "upper case": ("GZIP", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "two of gzip": ("gzip", lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:])),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
    "two of zstd": ("zstd", lambda body: zstd.compress(body[:20]) + zstd.compress(body[20:])),
    "identity": ("identity", bytes),
    "nothing": ("", bytes),
}
COMPRESSED = [name for name in CODERS if name not in ("identity", "nothing")]


@pytest.mark.parametrize(("coding", "encode"), CODERS.values(), ids=CODERS)
def test_a_body_may_be_compressed(
    sender: httpx2.Client, recorded: Recorded, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    headers = {"Content-Encoding": coding}
    assert partial_success(sender.post("/v1/traces", content=encode(BODY), headers=headers)) == (0, "")
    as_text = json.dumps(as_json(traces(span(3)))).encode()
    answer = sender.post("/v1/traces", content=encode(as_text), headers=headers | JSON)
    assert answer.json() == {}
    assert recorded.span_ids == [1, 2, 3]


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "deflate,gzip", "zstd, identity", "gzip;q=1"])
def test_another_coding_or_two_are_refused(sender: httpx2.Client, recorded: Recorded, coding: str) -> None:
    answer = sender.post("/v1/traces", content=gzip.compress(BODY), headers={"Content-Encoding": coding})
    assert refusal(answer) == (415, "INVALID_REQUEST")
    assert "gzip, deflate, zstd" in detail(answer)["message"]
    assert recorded.items == []


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_damaged_body_is_refused_and_nothing_is_stored(
    sender: httpx2.Client, recorded: Recorded, name: str
) -> None:
    coding, encode = CODERS[name]
    body = encode(BODY)
    for harmed in (body[:-1], body[: len(body) // 2], b"x" + body, BODY):
        answer = sender.post("/v1/traces", content=harmed, headers={"Content-Encoding": coding})
        assert refusal(answer) == (400, "INVALID_REQUEST"), harmed
    assert recorded.items == []


@pytest.mark.parametrize("name", COMPRESSED)
def test_garbage_behind_a_compressed_body_is_refused(
    sender: httpx2.Client, recorded: Recorded, name: str
) -> None:
    coding, encode = CODERS[name]
    answer = sender.post(
        "/v1/traces", content=encode(BODY) + b"garbage", headers={"Content-Encoding": coding}
    )
    assert refusal(answer) == (400, "INVALID_REQUEST")
    assert recorded.items == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_never_in_memory(sender: httpx2.Client, recorded: Recorded, coding: str) -> None:
    body = CODERS[coding][1](bytes(BOMB_BYTES))
    assert len(body) < LIMIT
    tracemalloc.start()
    try:
        answer = sender.post("/v1/traces", content=body, headers={"Content-Encoding": coding})
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal(answer) == (413, "REQUEST_TOO_LARGE")
    assert most_bytes < BOMB_BYTES / 4
    assert recorded.items == []


def test_many_small_streams_in_one_body_are_refused(sender: httpx2.Client, recorded: Recorded) -> None:
    answer = sender.post(
        "/v1/traces", content=gzip.compress(b"") * 5000, headers={"Content-Encoding": "gzip"}
    )
    assert refusal(answer) == (400, "INVALID_REQUEST")


def large(size: int) -> bytes:
    """A request with one span, of so many bytes."""
    padding = size - len(traces(span(attributes=[pair("a", string_value="x" * 70_000)])).SerializeToString())
    body = traces(span(attributes=[pair("a", string_value="x" * (70_000 + padding))])).SerializeToString()
    assert len(body) == size
    return bytes(body)


@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate", "zstd"])
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(
    sender: httpx2.Client, recorded: Recorded, coding: str
) -> None:
    encode = CODERS[coding][1]
    headers = {"Content-Encoding": coding}
    assert sender.post("/v1/traces", content=encode(large(LIMIT)), headers=headers).status_code == 200
    answer = sender.post("/v1/traces", content=encode(large(LIMIT + 1)), headers=headers)
    assert refusal(answer) == (413, "REQUEST_TOO_LARGE")
    assert f"{LIMIT:,}" in detail(answer)["message"]
    assert len(recorded.items) == 1


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"garbage", b"{}", b"hello", frame(0x12, b"")], ids=repr)
def test_a_body_that_is_no_message_is_refused_and_nothing_is_stored(
    sender: httpx2.Client, recorded: Recorded, body: bytes
) -> None:
    for path in (*TRACES, *LOGS):
        answer = sender.post(path, content=body)
        assert refusal(answer) == (400, "INVALID_REQUEST")
        assert "nothing of it was stored" in detail(answer)["message"]
    assert recorded.items == []


def test_an_empty_body_has_no_spans_and_is_no_json(sender: httpx2.Client, recorded: Recorded) -> None:
    assert partial_success(sender.post("/v1/traces", content=b"")) == (0, "")
    assert refusal(sender.post("/v1/traces", content=b"", headers=JSON)) == (400, "INVALID_REQUEST")


def test_one_bad_span_of_a_hundred_is_counted_and_the_others_are_taken(
    sender: httpx2.Client, recorded: Recorded
) -> None:
    frames = [broken(n) if n == 50 else span(n).SerializeToString() for n in range(1, 101)]
    body = frame(0x0A, frame(0x12, b"".join(frame(0x12, each) for each in frames)))
    count, message = partial_success(sender.post("/v1/traces", content=body))
    assert count == 1
    assert message.startswith("1 × ")
    assert "UTF-8" in message
    assert recorded.span_ids == [*range(1, 50), *range(51, 101)]


def test_reasons_of_the_decoder_and_of_the_store_are_counted_together(
    sender: httpx2.Client, recorded: Recorded
) -> None:
    recorded.refused = [Refused("the trace was deleted", 2)]
    data = as_json(traces(span(1), span(2, trace_id=b""), span(3)))
    told = sender.post("/v1/traces", json=data).json()["partialSuccess"]
    assert told["rejectedSpans"] == "3"
    assert told["errorMessage"].startswith("2 × the trace was deleted; 1 × ")
    told = sender.post("/v1/logs", json=as_json(logs(time_unix_nano=1))).json()["partialSuccess"]
    assert told["rejectedLogRecords"] == "3"


def test_spans_on_the_path_of_logs_are_told_where_they_belong(
    sender: httpx2.Client, recorded: Recorded
) -> None:
    count, message = partial_success(sender.post("/v1/logs", content=BODY))
    assert count == 2
    assert "/v1/traces" in message
    data = logs(trace_id=TRACE, span_id=SPAN, time_unix_nano=1)
    count, message = partial_success(sender.post("/v1/traces", content=data.SerializeToString()))
    assert count == 1
    assert "/v1/logs" in message
    assert recorded.items == []


def test_many_reasons_are_bounded(sender: httpx2.Client, recorded: Recorded) -> None:
    recorded.refused = [Refused(f"reason {number}") for number in range(1000)]
    count, message = partial_success(sender.post("/v1/traces", content=BODY))
    assert count == 1000
    assert len(message) < 1000
    assert message.endswith("990 × other reasons")


def test_a_large_request_is_recorded_in_parts(sender: httpx2.Client, recorded: Recorded) -> None:
    spans = [span(number) for number in range(1, PIECE + 2)]
    assert partial_success(sender.post("/v1/traces", content=traces(*spans).SerializeToString())) == (0, "")
    assert recorded.span_ids == list(range(1, PIECE + 2))
    assert len(recorded.flows) == 2


@pytest.mark.parametrize(
    "shown",
    [
        ("Authorization", "Bearer {key}"),
        ("Authorization", "bearer  {key}"),
        ("Authorization", "{key}"),
        ("Authorization", "Basic {basic}"),
        ("Authorization", "basic {basic}"),
        ("x-api-key", "{key}"),
        ("X-API-Key", "Bearer {key}"),
    ],
)
def test_a_key_is_shown_in_many_ways(
    server: RunningServer, recorded: Recorded, shown: tuple[str, str]
) -> None:
    key = server.make_key("acme", "demo", "record")
    basic = base64.b64encode(f"pk-lf-1:{key}".encode()).decode()
    name, value = shown
    headers = {name: value.format(key=key, basic=basic)}
    for path in TRACES:
        assert httpx2.post(f"{server.address}{path}", content=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nk_wrong"},
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic /w=="},
        {"Authorization": f"Basic {base64.b64encode(b'nk_user:nk_wrong').decode()}"},
        {"x-api-key": "nk_wrong"},
        {"x-api-key": "other"},
    ],
    ids=str,
)
def test_nothing_is_taken_without_a_good_key(
    server: RunningServer, recorded: Recorded, headers: dict[str, str]
) -> None:
    for path in (*TRACES, *LOGS, *METRICS):
        answer = httpx2.post(f"{server.address}{path}", content=BODY, headers=headers)
        assert refusal(answer) == (401, "UNAUTHENTICATED")
    assert recorded.items == []


@pytest.mark.parametrize(("role", "status"), [("record", 200), ("run", 200), ("admin", 200), ("read", 403)])
def test_a_key_that_only_reads_may_not_send(
    server: RunningServer, recorded: Recorded, role: str, status: int
) -> None:
    with http_for(server, server.make_key("acme", "demo", role)) as http:
        for path in (*TRACES, *LOGS, *METRICS):
            answer = http.post(f"{server.address}{path}", content=b"")
            assert answer.status_code == status
            if status == 403:
                assert "send traces" in detail(answer)["message"]


def test_every_role_is_tried_above() -> None:
    assert set(ROLES) == {"record", "run", "admin", "read"}


def test_the_ways_of_senders_do_not_open_the_api(server: RunningServer) -> None:
    for headers in ({"Authorization": server.key}, {"x-api-key": server.key}):
        assert httpx2.get(f"{server.base_url}/flow-runs", headers=headers).status_code == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_only_post_is_possible(sender: httpx2.Client, recorded: Recorded, method: str) -> None:
    for path in (*TRACES, *LOGS, *METRICS):
        if path != "/":
            answer = sender.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")


def test_the_page_is_still_at_the_root(server: RunningServer) -> None:
    answer = httpx2.get(f"{server.address}/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_a_revoked_key_stops_at_once(server: RunningServer, recorded: Recorded) -> None:
    key = server.make_key("acme", "demo", "record")
    with http_for(server, key) as http:
        assert http.post(f"{server.address}/v1/traces", content=BODY).status_code == 200

        async def revoke() -> bool:
            found = await server.runtime.store.find_key(digest_of(key))
            assert found is not None
            return await server.runtime.store.revoke_key(found.project_id, found.id)

        assert server.call(revoke())
        assert refusal(http.post(f"{server.address}/v1/traces", content=BODY)) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "fault",
    [StoreError("the disk is gone"), api_error("UNAVAILABLE", "the project is full")],
    ids=["store", "project"],
)
def test_what_cannot_be_stored_is_to_be_sent_again(
    sender: httpx2.Client, recorded: Recorded, fault: Exception
) -> None:
    recorded.fault = fault
    answer = sender.post("/v1/traces", content=BODY)
    assert refusal(answer) == (503, "UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1


def test_who_sends_too_often_is_told_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(rate_limit_per_minute=2) as server, http_for(server, server.key) as http:
        monkeypatch.setattr(server.runtime, "recordings", Recorded())
        answers = [http.post(f"{server.address}/v1/traces", content=BODY) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1


def head_of(server: RunningServer, size: int, *, key: str) -> bytes:
    return (
        f"POST /v1/traces HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Length: {size}\r\n\r\n"
    ).encode()


def test_a_body_may_come_byte_by_byte(server: RunningServer, recorded: Recorded) -> None:
    with raw_connection(server) as connection:
        for byte in head_of(server, len(BODY), key=server.key) + BODY:
            connection.sendall(bytes([byte]))
        assert read_answer(connection)[::2] == (200, b"")
    assert recorded.span_ids == [1, 2]


def test_a_body_may_come_in_chunks(sender: httpx2.Client, recorded: Recorded) -> None:
    answer = sender.post("/v1/traces", content=iter([BODY[:7], BODY[7:9], BODY[9:]]))
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert partial_success(answer) == (0, "")
    assert recorded.span_ids == [1, 2]


def test_of_a_body_whose_sender_leaves_nothing_is_stored(server: RunningServer, recorded: Recorded) -> None:
    with raw_connection(server) as connection:
        connection.sendall(head_of(server, len(BODY), key=server.key) + BODY[:-1])
    with raw_connection(server) as connection:
        connection.sendall(head_of(server, len(BODY), key=server.key) + BODY)
        assert read_answer(connection)[0] == 200
    assert recorded.span_ids == [1, 2]


def test_a_hundred_senders_at_once_lose_nothing(server: RunningServer, recorded: Recorded) -> None:
    begin = threading.Barrier(100)

    def send(number: int) -> int:
        body = gzip.compress(traces(*(span(number * 100 + n) for n in range(1, 11))).SerializeToString())
        headers = {"Authorization": f"Bearer {server.key}", "Content-Encoding": "gzip"}
        begin.wait(LONGEST_S)
        answer = httpx2.post(f"{server.address}/v1/traces", content=body, headers=headers, timeout=LONGEST_S)
        return answer.status_code

    with ThreadPoolExecutor(100) as threads:
        assert set(threads.map(send, range(100))) == {200}
    assert sorted(recorded.span_ids) == [number * 100 + n for number in range(100) for n in range(1, 11)]


def runs_of(http: httpx2.Client, trace_id: bytes) -> list[dict[str, Any]]:
    found = http.get("/flow-runs", params={"q": "kind:plain"}).json()["runs"]
    return [run for run in found if run["recording"]["traceId"] == trace_id.hex()]


@pytest.mark.parametrize("is_json", [False, True], ids=["protobuf", "JSON"])
def test_what_is_acknowledged_is_in_the_next_answer(
    server: RunningServer, sender: httpx2.Client, is_json: bool
) -> None:
    trace_id = bytes([7, is_json] * 8)
    data = traces(*(span(number, trace_id=trace_id) for number in range(1, 4)), span(4, trace_id=b""))
    with http_for(server, server.key) as http:
        for _ in range(2):
            if is_json:
                told = sender.post("/v1/traces", json=as_json(data)).json()["partialSuccess"]
                assert told["rejectedSpans"] == "1"
            else:
                answer = sender.post(
                    "/v1/traces", content=gzip.compress(data.SerializeToString()), headers=GZIP
                )
                assert partial_success(answer)[0] == 1
            [run] = runs_of(http, trace_id)
            assert (run["stepCount"], run["flowSlug"]) == (3, "shop")


@pytest.mark.parametrize(
    "value",
    [
        {"doubleValue": 10**400},
        {"intValue": "9" * 5000},
        {"arrayValue": {"values": [json.loads('{"a":' * 70 + "1" + "}" * 70)]}},
    ],
    ids=["too large", "too long", "too deep"],
)
def test_a_trace_of_which_no_span_can_be_kept_leaves_no_run(
    server: RunningServer, sender: httpx2.Client, value: dict[str, Any]
) -> None:
    data = as_json(traces(span(1, trace_id=bytes([9] * 16))))
    [sent] = data["resourceSpans"][0]["scopeSpans"][0]["spans"]
    sent["attributes"] = [{"key": "a", "value": value}]
    assert sender.post("/v1/traces", json=data).json()["partialSuccess"]["rejectedSpans"] == "1"
    with http_for(server, server.key) as http:
        assert runs_of(http, bytes([9] * 16)) == []


def test_measured_numbers_and_ids_are_no_secrets(server: RunningServer, sender: httpx2.Client) -> None:
    trace_id, id = bytes([5] * 16), "ab4111111111111111cdefabcdefabcd"
    sent = span(1, trace_id=trace_id)
    sent.attributes.append(pair("gen_ai.server.time_per_output_token", double_value=0.25))
    sent.attributes.append(pair("cause", string_value=f"trace {id}, card 4111 1111 1111 1111"))
    assert sender.post("/v1/traces", content=traces(sent).SerializeToString()).status_code == 200
    with http_for(server, server.key) as http:
        [run] = http.get("/flow-runs", params={"q": "kind:recorded", "limit": 1}).json()["runs"]
        [step] = http.get(f"/flow-runs/{run['id']}/trace").json()["steps"]
        assert step["attributes"] == {
            "gen_ai.server.time_per_output_token": 0.25,
            "cause": f"trace {id}, card [redacted]",
        }


@pytest.mark.parametrize("is_first", [True, False], ids=["log first", "span first"])
def test_a_log_record_joins_its_span_whichever_comes_first(
    server: RunningServer, sender: httpx2.Client, is_first: bool
) -> None:
    trace_id = bytes([6, is_first] * 8)
    body = {"kvlist_value": {"values": [pair("content", string_value="Hello")]}}
    log = logs(trace_id=trace_id, span_id=(1).to_bytes(8), event_name="gen_ai.choice", body=body)
    requests: list[tuple[str, Any]] = [("/v1/logs", log), ("/v1/traces", traces(span(1, trace_id=trace_id)))]
    for path, data in requests if is_first else reversed(requests):
        assert partial_success(sender.post(path, content=data.SerializeToString())) == (0, "")
    with http_for(server, server.key) as http:
        found = http.get("/flow-runs", params={"q": "kind:recorded"}).json()["runs"]
        [run] = [each for each in found if each["recording"]["traceId"] == trace_id.hex()]
        [step] = http.get(f"/flow-runs/{run['id']}/trace").json()["steps"]
        assert step["name"] == "chat"
        [call] = step["modelCalls"]
        assert call["response"]["content"] == "Hello"


def test_the_header_decides_the_flow_of_the_run(server: RunningServer, sender: httpx2.Client) -> None:
    trace_id = bytes([8] * 16)
    body = traces(span(1, trace_id=trace_id)).SerializeToString()
    assert sender.post("/", content=body, headers={"x-runglass-flow": "support"}).status_code == 200
    with http_for(server, server.key) as http:
        [run] = runs_of(http, trace_id)
        assert run["flowSlug"] == "support"


def test_requests_are_counted(server: RunningServer, sender: httpx2.Client, recorded: Recorded) -> None:
    before = measured.otlp_requests.copy(), measured.refused_spans.total()
    sender.post("/v1/traces", content=traces(span(1), span(2, trace_id=b"")).SerializeToString())
    sender.post("/v1/logs", content=b"")
    sender.post("/v1/metrics", content=b"")
    assert measured.otlp_requests - before[0] == {"traces": 1, "logs": 1, "metrics": 1}
    assert measured.refused_spans.total() == before[1] + 1


class Slow(Recorded):
    """Records nothing before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.goes_on = threading.Event(), Future[None]()

    async def record(self, project: Project, piece: Piece) -> Counter[str]:
        self.begun.set()
        await asyncio.wrap_future(self.goes_on)
        return await super().record(project, piece)


def test_where_too_many_bodies_wait_another_is_to_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    body = traces(span(attributes=[pair("a", string_value="x" * 600_000)])).SerializeToString()
    with (
        running_server(memory_limit_bytes=4 << 20) as server,
        http_for(server, server.key) as http,
        ThreadPoolExecutor(1) as thread,
    ):
        monkeypatch.setattr(server.runtime, "recordings", slow)
        url = f"{server.address}/v1/traces"
        first = thread.submit(http.post, url, content=body)
        try:
            assert slow.begun.wait(LONGEST_S)
            second = http.post(url, content=gzip.compress(body), headers=GZIP)
            assert refusal(second) == (503, "UNAVAILABLE")
            assert int(second.headers["retry-after"]) >= 1
        finally:
            slow.goes_on.set_result(None)
        assert first.result().status_code == 200
        assert http.post(url, content=gzip.compress(body), headers=GZIP).status_code == 200

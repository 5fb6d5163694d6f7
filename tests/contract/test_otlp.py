"""OTLP over real sockets: encodings, codings, keys and roles, and what a sender is told of refusals."""

import base64
import gzip
import json
import threading
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx2
import pytest
from backports import zstd
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from runglass.errors import StoreError
from runglass.recording.received import Refused
from runglass.recording.recordings import Recorded
from runglass.recording.span_worker import Piece, ReadSpan
from runglass.store.records import Project
from runglass.testing import RunningServer, running_server
from tests.contract.wire import LONGEST_S, head_of, http_for, raw_connection, read_answer, refusal
from tests.faulty_store import FaultyStore
from tests.memory import most_memory
from tests.servers import server_with
from tests.unit.recording.test_otlp import EVERYTHING, as_json, frame, logs, pair, span, traces

LIMIT = 200_000
BOMB_BYTES = 64 << 20
PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
GZIP = {"Content-Encoding": "gzip"}
BODY = traces(span(1), span(2)).SerializeToString()


class Taken:
    """In the place of the runtime's recordings: keeps what comes, or does as a test says."""

    def __init__(self) -> None:
        self.items: list[ReadSpan] = []
        self.flows: list[str] = []
        self.projects: list[str] = []
        self.refused: list[Refused] = []
        self.fault: Exception | None = None

    async def record(self, project: Project, pieces: AsyncIterator[Piece]) -> Recorded:
        refused = Counter[str]()
        async for piece in pieces:
            if self.fault is not None:
                raise self.fault
            self.projects.append(project.name)
            self.flows += [span.slug for span in piece.spans[:1]]
            self.items += piece.spans
            refused += Counter(piece.refused) + Counter(dict(self.refused))
        return Recorded(refused, set())

    @property
    def span_ids(self) -> list[int]:
        return [int(item.head.span_id, 16) for item in self.items]


server = server_with(otlp_limit_bytes=LIMIT)


@pytest.fixture
def recorded(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Taken:
    made = Taken()
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


@pytest.mark.parametrize("path", ["/", "/v1/traces/", "//v1/traces", "/otel/"])
def test_traces_are_taken_on_every_path(sender: httpx2.Client, recorded: Taken, path: str) -> None:
    answer = sender.post(f"{sender.base_url}{path}" if "//" in path else path, content=BODY, headers=PROTOBUF)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert recorded.span_ids == [1, 2]
    assert recorded.projects == ["demo"]


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_answered_with_json(sender: httpx2.Client, recorded: Taken, media_type: str) -> None:
    body = json.dumps(as_json(traces(span(1))))
    answer = sender.post("/v1/traces", content=body, headers={"Content-Type": media_type})
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"] == "application/json"
    assert recorded.span_ids == [1]


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/grpc", "application/x-www-form-urlencoded"]
)
def test_another_content_type_is_refused(sender: httpx2.Client, recorded: Taken, media_type: str) -> None:
    answer = sender.post("/v1/traces", content=BODY, headers={"Content-Type": media_type})
    assert refusal(answer, media_type) == (415, "INVALID_REQUEST")
    assert recorded.items == []


CODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "upper case": ("GZIP", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "two of gzip": ("gzip", lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:])),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", partial(zlib.compress, wbits=-zlib.MAX_WBITS)),
    "zstd": ("zstd", zstd.compress),
    "two of zstd": ("zstd", lambda body: zstd.compress(body[:20]) + zstd.compress(body[20:])),
    "identity": ("identity", bytes),
    "nothing": ("", bytes),
}
COMPRESSED = [name for name in CODERS if name not in ("identity", "nothing")]


@pytest.mark.parametrize(("coding", "encode"), CODERS.values(), ids=CODERS)
def test_a_body_may_be_compressed(
    sender: httpx2.Client, recorded: Taken, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    headers = {"Content-Encoding": coding}
    assert partial_success(sender.post("/v1/traces", content=encode(BODY), headers=headers)) == (0, "")
    as_text = json.dumps(as_json(traces(span(3)))).encode()
    answer = sender.post("/v1/traces", content=encode(as_text), headers=headers | JSON)
    assert answer.json() == {}
    assert recorded.span_ids == [1, 2, 3]


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "deflate,gzip", "zstd, identity", "gzip;q=1"])
def test_another_coding_or_two_are_refused(sender: httpx2.Client, recorded: Taken, coding: str) -> None:
    answer = sender.post("/v1/traces", content=gzip.compress(BODY), headers={"Content-Encoding": coding})
    assert refusal(answer, "gzip, deflate, zstd") == (415, "INVALID_REQUEST")
    assert recorded.items == []


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_damaged_body_is_refused_and_nothing_is_stored(
    sender: httpx2.Client, recorded: Taken, name: str
) -> None:
    coding, encode = CODERS[name]
    body = encode(BODY)
    many = encode(b"") * 5000
    for harmed in (body[:-1], body[: len(body) // 2], b"x" + body, body + b"garbage", BODY, many):
        answer = sender.post("/v1/traces", content=harmed, headers={"Content-Encoding": coding})
        assert refusal(answer) == (400, "INVALID_REQUEST"), harmed
    assert recorded.items == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_never_in_memory(sender: httpx2.Client, recorded: Taken, coding: str) -> None:
    body = CODERS[coding][1](bytes(BOMB_BYTES))
    assert len(body) < LIMIT
    answer, most_bytes = most_memory(
        lambda: sender.post("/v1/traces", content=body, headers={"Content-Encoding": coding})
    )
    assert refusal(answer) == (413, "REQUEST_TOO_LARGE")
    assert most_bytes < BOMB_BYTES / 4
    assert recorded.items == []


def large(size: int) -> bytes:
    """A request with one span, of so many bytes."""
    padding = size - len(traces(span(attributes=[pair("a", string_value="x" * 70_000)])).SerializeToString())
    body = traces(span(attributes=[pair("a", string_value="x" * (70_000 + padding))])).SerializeToString()
    assert len(body) == size
    return bytes(body)


@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate", "zstd"])
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(
    sender: httpx2.Client, recorded: Taken, coding: str
) -> None:
    encode = CODERS[coding][1]
    headers = {"Content-Encoding": coding}
    assert sender.post("/v1/traces", content=encode(large(LIMIT)), headers=headers).status_code == 200
    answer = sender.post("/v1/traces", content=encode(large(LIMIT + 1)), headers=headers)
    assert refusal(answer, f"{LIMIT:,}") == (413, "REQUEST_TOO_LARGE")
    assert len(recorded.items) == 1


NO_PROTOBUF = [
    *(BODY[:-1], BODY[: len(BODY) // 2], BODY + b"\x0a", BODY + b"garbage", BODY + b"\x00\x00"),
    *(b"{}", b"hello", b"\xff" * 20, b"\x18\x01", frame(0x12, b"")),
]
NO_JSON = [
    *(b"", b"{", b"[]", b'{"data":[]}', b'{"resourceSpans":[]} x', b'{"resourceSpans":{}}'),
    *(BODY, b"\xef\xbb\xbf{}"),
]


@pytest.mark.parametrize(
    ("body", "headers"),
    [*((body, PROTOBUF) for body in NO_PROTOBUF), *((body, JSON) for body in NO_JSON)],
    ids=repr,
)
def test_a_body_that_is_no_message_is_refused_and_nothing_is_stored(
    sender: httpx2.Client, recorded: Taken, body: bytes, headers: dict[str, str]
) -> None:
    for path in ("/v1/traces", "/v1/logs"):
        answer = sender.post(path, content=body, headers=headers)
        assert refusal(answer, "nothing of it was stored") == (400, "INVALID_REQUEST")
    assert recorded.items == []


def test_reasons_of_the_decoder_and_of_the_store_are_counted_together_and_bounded(
    sender: httpx2.Client, recorded: Taken
) -> None:
    recorded.refused = [Refused("the trace was deleted", 2)]
    data = as_json(traces(span(1), span(2, trace_id=b""), span(3)))
    told = sender.post("/v1/traces", json=data).json()["partialSuccess"]
    assert told["rejectedSpans"] == "3"
    assert told["errorMessage"].startswith("2 × the trace was deleted; 1 × ")
    told = sender.post("/v1/logs", json=as_json(logs(time_unix_nano=1))).json()["partialSuccess"]
    assert told["rejectedLogRecords"] == "3"
    recorded.refused = [Refused(f"reason {number}") for number in range(1000)]
    count, message = partial_success(sender.post("/v1/traces", content=BODY))
    assert count == 1000
    assert len(message) < 1000
    assert message.endswith("990 × other reasons")


@pytest.mark.parametrize("is_json", [False, True], ids=["protobuf", "JSON"])
def test_what_came_by_the_path_of_the_other_signal_is_told_where_it_belongs(
    sender: httpx2.Client, recorded: Taken, is_json: bool
) -> None:
    record = {"attributes": [pair("a", int_value=1)], "time_unix_nano": 1}
    a_log = logs(trace_id=bytes([7] * 16), span_id=bytes([7] * 8), **record)
    for path, data, there in (
        ("/v1/logs", traces(EVERYTHING), "/v1/traces"),
        ("/v1/traces", a_log, "/v1/logs"),
    ):
        if is_json:
            told = sender.post(path, json=as_json(data)).json()["partialSuccess"]
            count, message = int(next(iter(told.values()))), told["errorMessage"]
        else:
            count, message = partial_success(sender.post(path, content=data.SerializeToString()))
        assert (count, there in message) == (1, True), path
    assert recorded.items == []


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
    server: RunningServer, nobody: httpx2.Client, recorded: Taken, shown: tuple[str, str]
) -> None:
    key = server.make_key("acme", "demo", "record")
    basic = base64.b64encode(f"pk-lf-1:{key}".encode()).decode()
    headers = {shown[0]: shown[1].format(key=key, basic=basic)}
    assert nobody.post(f"{server.address}/v1/traces", content=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic /w=="},
        {"Authorization": f"Basic {base64.b64encode(b'nk_user:nk_wrong').decode()}"},
        {"x-api-key": "nk_wrong"},
    ],
    ids=str,
)
def test_nothing_is_taken_without_a_good_key(
    server: RunningServer, nobody: httpx2.Client, recorded: Taken, headers: dict[str, str]
) -> None:
    answer = nobody.post(f"{server.address}/v1/traces", content=BODY, headers=headers)
    assert refusal(answer) == (401, "UNAUTHENTICATED")
    assert recorded.items == []


def test_the_ways_of_senders_do_not_open_the_api(server: RunningServer, nobody: httpx2.Client) -> None:
    for headers in ({"Authorization": server.key}, {"x-api-key": server.key}):
        assert nobody.get("/flow-runs", headers=headers).status_code == 401


def test_what_cannot_be_stored_is_to_be_sent_again(sender: httpx2.Client, recorded: Taken) -> None:
    recorded.fault = StoreError("the disk is gone")
    answer = sender.post("/v1/traces", content=BODY)
    assert refusal(answer) == (503, "UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1


def test_of_a_body_whose_sender_leaves_nothing_is_stored(server: RunningServer, recorded: Taken) -> None:
    with raw_connection(server) as connection:
        connection.sendall(head_of(server, "POST", "/v1/traces", f"Content-Length: {len(BODY)}") + BODY[:-1])
    with raw_connection(server) as connection:
        connection.sendall(head_of(server, "POST", "/v1/traces", f"Content-Length: {len(BODY)}") + BODY)
        assert read_answer(connection)[0] == 200
    assert recorded.span_ids == [1, 2]


def test_a_hundred_senders_at_once_lose_nothing(server: RunningServer, recorded: Taken) -> None:
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
def test_what_is_acknowledged_is_in_the_next_answer_under_the_flow_of_the_header(
    http: httpx2.Client, sender: httpx2.Client, is_json: bool
) -> None:
    trace_id = bytes([7, is_json] * 8)
    data = traces(*(span(number, trace_id=trace_id) for number in range(1, 4)), span(4, trace_id=b""))
    for _ in range(2):
        if is_json:
            answer = sender.post("/v1/traces", json=as_json(data), headers={"x-runglass-flow": "support"})
            assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
        else:
            body = gzip.compress(data.SerializeToString())
            assert partial_success(sender.post("/v1/traces", content=body, headers=GZIP))[0] == 1
        [run] = runs_of(http, trace_id)
        assert (run["stepCount"], run["flowSlug"]) == (3, "support" if is_json else "shop")


@pytest.mark.parametrize(
    "name", [{"int_value": 5}, {"array_value": {"values": [{"int_value": 5}]}}], ids=["number", "list"]
)
def test_a_log_record_whose_name_is_no_text_is_recorded(sender: httpx2.Client, name: dict[str, Any]) -> None:
    log = logs(trace_id=bytes([10] * 16), span_id=(1).to_bytes(8), attributes=[pair("event.name", **name)])
    answer = sender.post("/v1/logs", content=log.SerializeToString())
    assert (answer.status_code, partial_success(answer)) == (200, (0, ""))


def test_where_too_many_bodies_wait_another_is_to_be_sent_again() -> None:
    body = traces(span(attributes=[pair("a", string_value="x" * 600_000)])).SerializeToString()
    with (
        running_server(memory_limit_bytes=4 << 20) as server,
        http_for(server, server.key) as http,
        FaultyStore(server.runtime.recordings) as recordings,
        ThreadPoolExecutor(1) as thread,
    ):
        held = recordings.hold("record")
        url = f"{server.address}/v1/traces"
        first = thread.submit(http.post, url, content=body)
        try:
            held.until_reached()
            second = http.post(url, content=gzip.compress(body), headers=GZIP)
            assert refusal(second) == (503, "UNAVAILABLE")
            assert int(second.headers["retry-after"]) >= 1
        finally:
            held.let_go()
        assert first.result().status_code == 200
        assert http.post(url, content=gzip.compress(body), headers=GZIP).status_code == 200

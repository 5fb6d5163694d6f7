"""How large answers leave: in parts, packed, or as a range of their bytes; and what is said of those cut off.

The outline of a large run is kept once it has ended: who opens the run later does not wait for it.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
import msgspec
import pytest

from runglass.errors import StoreError
from runglass.outlines.kept_outline import PACKED_VERSION, PackedOutline
from runglass.outlines.outline import Outline
from runglass.runtime.runtime import FixedLimits
from runglass.server.http.response_stream import PART_BYTES
from runglass.server.services.outlines import Outlines
from runglass.store.records import LARGE_RUN_EVENTS, RunRecord
from runglass.testing import RunningServer
from tests.contract.wire import execute, head_of, raw_connection, requests_in, rest_of, stored_run
from tests.faulty_store import FaultyStore
from tests.servers import served, server_with
from tests.waiting import eventually

STEPS, STEP_BYTES = 50, 50_000
LARGE = f"""
slug: large
steps:
  - id: each
    type: loop
    over: list(range({STEPS}))
    steps: [{{id: s, type: code, input: {{}}, code: 'return {{"x": "x" * {STEP_BYTES}}}'}}]
"""

# Runs of some size already count as ones whose outline takes long.
server = server_with(LARGE, limits=FixedLimits(long_run_events=LARGE_RUN_EVENTS), capture="full")


@pytest.fixture(scope="module")
def run(http: httpx2.Client) -> str:
    """The path of a run with a step in a loop, 2.5 MB in all."""
    return f"/flow-runs/{execute(http, 'large')}"


@pytest.mark.parametrize(("path", "member"), [("trace", "steps"), ("steps/s/trace?attempt=all", "attempts")])
def test_large_answers_come_in_parts_and_are_whole(
    http: httpx2.Client, run: str, path: str, member: str
) -> None:
    answer = http.get(f"{run}/{path}")
    assert answer.headers["content-type"] == "application/json"
    assert "content-length" not in answer.headers
    steps = answer.json()[member]
    assert [step["loopIndex"] for step in steps] == list(range(STEPS))
    assert {step["outputContext"]["x"] for step in steps} == {"x" * STEP_BYTES}


def test_no_read_of_an_answer_is_larger_than_a_part(
    http: httpx2.Client, run: str, faults: FaultyStore
) -> None:
    sizes: list[int] = []
    faults.after("trace", lambda opened: sizes.append(sum(len(step) for _, step in opened.steps)))
    faults.after("trace_page", lambda steps: sizes.append(sum(len(step) for _, step in steps)))
    assert http.get(f"{run}/trace").status_code == 200
    assert len(sizes) > 5
    assert max(sizes) < PART_BYTES + 2 * STEP_BYTES


def test_an_answer_that_cannot_be_read_to_its_end_is_broken_off_and_the_log_says_why(
    http: httpx2.Client, run: str, faults: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    def broken_off() -> str:
        caplog.clear()
        with pytest.raises(httpx2.RemoteProtocolError):
            http.get(f"{run}/trace", headers={"X-Request-Id": "asked-for-all"})
        (line,) = caplog.messages
        return line

    def with_a_broken_end(steps: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        return [(number, data if number < STEPS else b"garbage") for number, data in steps]

    cut_off = f"request asked-for-all: the answer to GET /api/v1{run}/trace was cut off: "
    unusable = StoreError("the store cannot be used: disk I/O error")
    faults.fail("trace_page", unusable, when=lambda run_no, *, after, limit_bytes: after > STEPS // 2)
    assert broken_off() == f"{cut_off}{unusable}"
    faults.mend("trace_page")
    faults.after("trace_page", with_a_broken_end, replaces=True)
    told = broken_off()
    assert told.startswith(cut_off)
    assert "cannot be read" in told


@contextmanager
def half_read(server: RunningServer, path: str) -> Iterator[socket.socket]:
    """A connection that has read the beginning of an answer, and reads no more."""
    with raw_connection(server, head_of(server, "GET", f"/api/v1{path}")) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        yield connection


@pytest.mark.parametrize("resource", ["trace", "trace/stream"])
def test_a_caller_who_reads_no_more_delays_nobody_and_is_no_fault_once_it_leaves(
    server: RunningServer, http: httpx2.Client, run: str, resource: str, caplog: pytest.LogCaptureFixture
) -> None:
    with half_read(server, f"{run}/{resource}"):
        assert len(http.get(f"{run}/{resource}").content) > STEPS * STEP_BYTES
        assert requests_in(server) == 1
    eventually(lambda: requests_in(server) == 0)
    assert caplog.messages == []


def test_an_answer_that_the_end_of_the_server_cuts_off_does_not_pass_for_the_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ExitStack() as stopping:
        server, http = stopping.enter_context(served(LARGE, capture="full"))
        run = f"/flow-runs/{execute(http, 'large')}"
        with half_read(server, f"{run}/trace") as connection:
            stopping.close()
            assert not rest_of(connection).endswith(b"0\r\n\r\n")
    (last,) = caplog.messages
    assert last.endswith(f"/api/v1{run}/trace was cut off: the server is being stopped")


GZIP = ("gzip", "GZIP", "deflate, gzip;q=0.5, br", "br,x-gzip ; q=1")
NO_GZIP = ("", "gzip;q=0", "gzip; q=0.000", "br", "gzipped", "not-gzip", "identity;q=1, *;q=0")


@pytest.mark.parametrize(
    ("header", "accepts"), [*((each, True) for each in GZIP), *((each, False) for each in NO_GZIP)]
)
def test_only_who_says_so_is_sent_gzip(http: httpx2.Client, run: str, header: str, accepts: bool) -> None:
    with http.stream("GET", f"{run}/trace/outline", headers={"Accept-Encoding": header}) as answer:
        assert (answer.headers.get("content-encoding") == "gzip") is accepts


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=3-", slice(3, None)),
        ("bytes=-3", slice(-3, None)),
        ("bytes=-99999999", slice(None)),
        ("bytes=8-99999999", slice(8, None)),
        ("Bytes= 0-0", slice(1)),
        # What is no range, is more than one or is of another unit is as if it had not been sent.
        *((other, None) for other in ("", "bytes=-", "bytes=5-4", "bytes=a-b", "bytes=0-1,3-4", "rows=0-1")),
        ("bytes=0-" + "9" * 5000, None),
        ("bytes=٣-٤", None),
    ],
)
def test_the_forms_of_a_range(
    http: httpx2.Client, run: str, header: str, expected: "slice[Any, Any, Any] | None"
) -> None:
    path = f"{run}/steps/s/payload"
    whole = http.get(path)
    answer = http.get(path, headers={b"Range": header.encode()})
    assert answer.status_code == (200 if expected is None else 206)
    assert answer.content == whole.content[expected or slice(None)]


LOOP = """
slug: long
steps:
  - id: each
    type: loop
    over: items
    max_concurrency: 8
    steps:
      - {id: work, type: passthrough}
"""
ITEMS = {"items": list(range(LARGE_RUN_EVENTS // 2))}
RENAMED = LOOP.replace("id: work", "id: labour")


@pytest.fixture(scope="module")
def kept(server: RunningServer, http: httpx2.Client) -> RunRecord:
    """A run of a draft, once its outline is kept."""
    server.push(LOOP, publish=False)
    run_id = execute(http, "long", parameters=ITEMS)
    found = stored_run(server, run_id)
    eventually(lambda: server.call(server.runtime.store.kept_outline(found.no)))
    return found


def opened(server: RunningServer, kept: RunRecord) -> Outline:
    """The outline as a server has it that was just started."""
    return server.call(Outlines(server.runtime).of(kept))


def text(outline: Outline) -> bytes:
    return b"".join(outline.json_parts(0, outline.row_count))


def test_a_kept_outline_has_the_rows_of_one_that_is_made(server: RunningServer, kept: RunRecord) -> None:
    packed = opened(server, kept)
    assert isinstance(packed, PackedOutline)
    assert packed.row_count == LARGE_RUN_EVENTS + 1
    # Of a run that goes on nothing is kept.
    made = opened(server, msgspec.structs.replace(kept, status="running"))
    assert not isinstance(made, PackedOutline)
    assert text(packed) == text(made)


def test_one_that_is_of_another_tree_is_made_anew(server: RunningServer, kept: RunRecord) -> None:
    server.push(RENAMED, publish=False)
    assert not isinstance(opened(server, kept), PackedOutline)
    server.push(LOOP, publish=False)
    assert isinstance(opened(server, kept), PackedOutline)


def test_one_that_cannot_be_read_is_made_anew_and_one_of_an_older_program_is_kept_anew(
    server: RunningServer, kept: RunRecord
) -> None:
    store = server.runtime.store
    head, *_ = server.call(store.kept_outline(kept.no))
    older = head.replace(b'"version":%d' % PACKED_VERSION, b'"version":%d' % (PACKED_VERSION - 1))
    for unusable in (b"{", older):
        server.call(store.keep_outline(kept.no, 0, unusable))
        assert not isinstance(opened(server, kept), PackedOutline)
    eventually(lambda: server.call(store.kept_outline(kept.no))[0] != older)
    assert isinstance(opened(server, kept), PackedOutline)


@pytest.mark.usefixtures("kept")
def test_the_ends_come_to_who_asks_for_them_and_say_so(http: httpx2.Client, faults: FaultyStore) -> None:
    faults.answer("due_outline", None)
    path = f"/flow-runs/{execute(http, 'long', parameters=ITEMS)}/trace/outline"
    first = http.get(path, params={"partial": True, "limit": 5}).json()
    whole = http.get(path, params={"limit": 5}).json()
    again = http.get(path, params={"partial": True, "limit": 5}).json()
    assert (first["partial"], whole["partial"], again["partial"]) == (True, False, False)
    assert first["rowCount"] < whole["rowCount"] == LARGE_RUN_EVENTS + 1
    assert first["columns"]["index"] == whole["columns"]["index"]

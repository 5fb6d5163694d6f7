"""How large answers leave: in parts, packed, or as a range of their bytes."""

from typing import Any

import httpx2
import pytest

from runglass.errors import StoreError
from runglass.server.http.response_stream import PART_BYTES
from runglass.testing import RunningServer
from tests.contract.wire import execute
from tests.faulty_store import FaultyStore
from tests.servers import server_with

STEPS, STEP_BYTES = 50, 50_000
LARGE = f"""
slug: large
steps:
  - id: each
    type: loop
    over: list(range({STEPS}))
    steps: [{{id: s, type: code, input: {{}}, code: 'return {{"x": "x" * {STEP_BYTES}}}'}}]
"""

server = server_with(LARGE, capture="full")


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
    server: RunningServer, http: httpx2.Client, run: str
) -> None:
    sizes: list[int] = []
    with FaultyStore(server.runtime.store) as reads:
        reads.after("trace", lambda opened: sizes.append(sum(len(step) for _, step in opened.steps)))
        reads.after("trace_page", lambda steps: sizes.append(sum(len(step) for _, step in steps)))
        assert http.get(f"{run}/trace").status_code == 200
    assert len(sizes) > 5
    assert max(sizes) < PART_BYTES + 2 * STEP_BYTES


def test_an_answer_that_cannot_be_read_to_its_end_is_broken_off(
    server: RunningServer, http: httpx2.Client, run: str
) -> None:
    unusable = StoreError("the store cannot be used: disk I/O error")
    with FaultyStore(server.runtime.store) as faults:
        faults.fail("trace_page", unusable, when=lambda run_no, *, after, limit_bytes: after > STEPS // 2)
        with pytest.raises(httpx2.RemoteProtocolError):
            http.get(f"{run}/trace")


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=0.5, br", True),
        ("br,x-gzip ; q=1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br", False),
        ("gzipped", False),
        ("not-gzip", False),
        ("identity;q=1, *;q=0", False),
    ],
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


@pytest.mark.parametrize(
    ("header", "named"),
    [("", False), ("{tag}", True), ('"a", W/{tag}', True), ("*", True), ('"a"', False)],
)
def test_a_tag_is_named_by_itself_weakly_or_by_a_star(
    http: httpx2.Client, run: str, header: str, named: bool
) -> None:
    path = f"{run}/steps/s/payload"
    tag = http.get(path).headers["etag"]
    answer = http.get(path, headers={"If-None-Match": header.format(tag=tag)})
    assert answer.status_code == (304 if named else 200)

"""How large answers leave: in parts, packed, or as a range of their bytes."""

from collections.abc import Iterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.errors import StoreError
from runglass.server.http.response_stream import PART_BYTES
from runglass.server.routes.outline import accepts_gzip
from runglass.server.routes.payload import byte_range, entity_tag, names_tag
from runglass.store.records import Append, RunRecord, StepRow
from runglass.testing import RunningServer, running_server
from tests.faulty_store import FaultyStore
from tests.records import new_run

STEPS = 200
STEP_BYTES = 10_000


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def run(server: RunningServer) -> RunRecord:
    """A run with a step in a loop of 200 iterations, 2 MB in all."""

    async def make() -> RunRecord:
        store = server.runtime.store
        project = await store.ensure_project("acme", "demo")
        flow = await store.put_draft(project.id, "f", name=None, capture=None, source=b"{}")
        made = await store.create_run(new_run(project.id, flow.id, id="01900000-0000-7000-8000-000000000001"))
        steps = [StepRow(n + 1, "s", str(n), 1, "completed", data(n)) for n in range(STEPS)]
        await store.append(
            Append(
                run_no=made.no,
                head=0,
                fence=made.fence,
                events=[b'{"eventType":"flow_completed"}'],
                steps=[*steps, StepRow(STEPS + 1, "t", "", 1, "completed", b'{"t":1}')],
                status="completed",
                summary=b'{"id":"r"}',
            )
        )
        return made

    return server.call(make())


def data(number: int) -> bytes:
    return b'{"n":"%d%b"}' % (number, b"x" * STEP_BYTES)


def get(server: RunningServer, run: RunRecord, path: str) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {server.key}"}
    return httpx2.get(f"{server.base_url}/flow-runs/{run.id}/{path}", headers=headers, timeout=30)


def test_a_large_trace_comes_in_parts_and_is_the_whole(server: RunningServer, run: RunRecord) -> None:
    answer = get(server, run, "trace")
    steps = b",".join([*map(data, range(STEPS)), b'{"t":1}'])
    assert answer.content == b'{"flowRun":{"id":"r"},"steps":[%b]}' % steps
    assert answer.headers["content-type"] == "application/json"
    assert "content-length" not in answer.headers


def test_all_attempts_come_in_parts_and_are_all(server: RunningServer, run: RunRecord) -> None:
    answer = get(server, run, "steps/s/trace?attempt=all")
    assert answer.content == b'{"stepId":"s","attempts":[%b]}' % b",".join(map(data, range(STEPS)))
    assert "content-length" not in answer.headers


def test_no_read_of_an_answer_is_larger_than_a_part(server: RunningServer, run: RunRecord) -> None:
    sizes: list[int] = []
    with FaultyStore(server.runtime.store) as reads:
        reads.after("trace", lambda opened: sizes.append(sum(len(step) for _, step in opened.steps)))
        reads.after("trace_page", lambda steps: sizes.append(sum(len(step) for _, step in steps)))
        assert get(server, run, "trace").status_code == 200
    assert len(sizes) > 5
    assert max(sizes) < PART_BYTES + 2 * STEP_BYTES


def test_an_answer_that_cannot_be_read_to_its_end_is_broken_off(
    server: RunningServer, run: RunRecord
) -> None:
    unusable = StoreError("the store cannot be used: disk I/O error")
    with FaultyStore(server.runtime.store) as faults:
        faults.fail("trace_page", unusable, when=lambda run_no, *, after, limit_bytes: after > STEPS // 2)
        with pytest.raises(httpx2.RemoteProtocolError):
            get(server, run, "trace")


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        (None, False),
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
def test_only_who_says_so_is_sent_gzip(header: str | None, accepts: bool) -> None:
    assert accepts_gzip(header) is accepts


DATA = b"0123456789"
TAG = entity_tag(DATA)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_range_within_the_content_is_those_bytes(data: bytes, draw: st.DataObject) -> None:
    first = draw.draw(st.integers(0, len(data) - 1))
    last = draw.draw(st.integers(first, len(data) - 1))
    found = byte_range(f"bytes={first}-{last}", None, size=len(data), tag=TAG)
    assert found is not None
    assert len(data[found.first : found.stop]) == last - first + 1
    assert found.content_range(len(data)) == f"bytes {first}-{last}/{len(data)}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=3-", b"3456789"),
        ("bytes=-3", b"789"),
        ("bytes=-99", DATA),
        ("bytes=8-99999999", b"89"),
        ("Bytes= 0-0 ", b"0"),
        # What is no range, is more than one or is of another unit is as if it had not been sent.
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=a-b", None),
        ("bytes=0-1,3-4", None),
        ("rows=0-1", None),
        ("bytes=0-" + "9" * 5000, None),
        ("bytes=٣-٤", None),
    ],
)
def test_the_forms_of_a_range(header: str | None, expected: bytes | None) -> None:
    found = byte_range(header, None, size=len(DATA), tag=TAG)
    assert (None if found is None else DATA[found.first : found.stop]) == expected


@pytest.mark.parametrize(
    ("header", "named"),
    [(None, False), ("", False), (TAG, True), (f'"a", W/{TAG}', True), ("*", True), ('"a"', False)],
)
def test_a_tag_is_named_by_itself_weakly_or_by_a_star(header: str | None, named: bool) -> None:
    assert names_tag(header, TAG) is named

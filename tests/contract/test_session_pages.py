"""Long sessions come in pages."""

import threading
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runglass.errors import RunPurged
from runglass.flows.flow import Flow
from runglass.server.http.response_stream import PART_BYTES
from runglass.server.requests.pagination import cursor_of_position
from runglass.server.services import session_runs
from runglass.server.services.session_runs import INLINE_BYTES
from runglass.store.list_records import ListPosition
from runglass.testing import RunningServer
from tests.contract.test_sessions import executions, run
from tests.contract.wire import detail, refusal
from tests.faulty_store import FaultyStore

HEAVY = """
slug: heavy
steps:
  - {id: l, type: loop, over: over, steps: [{id: inner, type: code, code: 'return {"text": "x" * 200000}'}]}
"""
TOO_MANY = 45
"""So many iterations are more than a page of 8 MB has."""


@pytest.fixture
def session() -> str:
    return str(uuid4())


def pages(http: httpx2.Client, session: str, **query: Any) -> list[dict[str, Any]]:
    """Every page from the first on, each asked for with the cursor of the one before."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = http.get(f"/seq/sessions/{session}", params={**query, **cursor})
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        assert found[-1].get("nextCursor", "") is not None
        if "nextCursor" not in found[-1]:
            return found
        cursor = {"cursor": found[-1]["nextCursor"]}


def ids(page: dict[str, Any]) -> list[str]:
    return [execution["executionId"] for execution in page["executions"]]


def test_a_limit_cuts_a_session_into_pages(http: httpx2.Client, session: str) -> None:
    runs = [run(http, session, "anything") for _ in range(5)]
    whole = executions(http, session)
    assert [execution["executionId"] for execution in whole] == runs
    for limit, sizes in ((1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (100, [5])):
        found = pages(http, session, limit=limit)
        assert [len(page["executions"]) for page in found] == sizes
        assert [one for page in found for one in page["executions"]] == whole
        assert {page["sessionId"] for page in found} == {session}


def test_a_run_that_comes_meanwhile_is_on_the_last_page(http: httpx2.Client, session: str) -> None:
    runs = [run(http, session, "anything") for _ in range(2)]
    first = http.get(f"/seq/sessions/{session}", params={"limit": 1}).json()
    runs.append(run(http, session, "anything"))
    rest = http.get(f"/seq/sessions/{session}", params={"cursor": first["nextCursor"]}).json()
    assert ids(first) + ids(rest) == runs


def test_a_session_that_does_not_fit_comes_in_pages_without_being_asked_for(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    """No page is larger than 8 MB, and no page is cut that need not be."""
    server.push(HEAVY)
    runs = [run(http, session, "heavy", parameters={"over": [0] * 10}) for _ in range(5)]
    answer = http.get(f"/seq/sessions/{session}")
    assert 5_000_000 < len(answer.content) <= 8_000_000
    found = pages(http, session)
    assert [execution_id for page in found for execution_id in ids(page)] == runs
    assert [len(ids(page)) for page in found] == [3, 2]
    assert [len(ids(page)) for page in pages(http, session, limit=2)] == [2, 2, 1]


def test_a_run_that_is_larger_than_a_page_comes_as_one(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    server.push(HEAVY)
    runs = [run(http, session, "heavy", parameters={"over": [0] * count}) for count in (1, TOO_MANY, 1)]
    found = pages(http, session)
    assert [ids(page) for page in found] == [[one] for one in runs]
    steps = [len(execution["steps"]) for page in found for execution in page["executions"]]
    assert steps == [2, TOO_MANY + 1, 2]


def test_a_large_run_is_read_and_encoded_in_bounded_pieces_beside_the_loop(
    server: RunningServer, http: httpx2.Client, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def thread() -> int:
        return threading.get_ident()

    server.push(HEAVY)
    for count in (1, 1, TOO_MANY):
        run(http, session, "heavy", parameters={"over": [0] * count})
    loop = server.call(thread())
    pieces: list[tuple[int, int]] = []
    flows: list[Flow] = []
    read = session_runs.SessionSteps.read

    def watched(self: session_runs.SessionSteps, rows: Sequence[bytes]) -> bytes:
        told = read(self, rows)
        size = max(len(told), sum(map(len, rows)))
        assert size <= INLINE_BYTES or threading.get_ident() != loop
        pieces.append((size, max(map(len, rows))))
        return told

    class Counted(session_runs.FlowShape):
        def __init__(self, flow: Flow) -> None:
            flows.append(flow)
            super().__init__(flow)

    monkeypatch.setattr(session_runs.SessionSteps, "read", watched)
    monkeypatch.setattr(session_runs, "FlowShape", Counted)
    found = pages(http, session)
    assert [len(page["executions"]) for page in found] == [2, 1]
    # A piece has a row at least, and then no more than is left of a part.
    assert all(size < PART_BYTES + largest + 1000 for size, largest in pieces)
    assert len(pieces) > 10
    # Two pages, and each goes through the flow of its runs once.
    assert len(flows) == 2


def test_runs_of_further_pages_are_not_read(http: httpx2.Client, session: str, faults: FaultyStore) -> None:
    runs = [run(http, session, "anything") for _ in range(30)]
    read = faults.calls("trace_page")
    found = http.get(f"/seq/sessions/{session}", params={"limit": 2}).json()
    assert ids(found) == runs[:2]
    assert len(read) == 2
    assert [one for page in pages(http, session, limit=7) for one in ids(page)] == runs


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": ""}, "cursor"),
    ],
)
def test_an_invalid_page_is_refused(
    http: httpx2.Client, session: str, query: dict[str, Any], name: str
) -> None:
    run(http, session, "anything")
    answer = http.get(f"/seq/sessions/{session}", params=query)
    assert refusal(answer) == (422, "INVALID_REQUEST")
    assert name in detail(answer)["message"]


def test_there_is_nothing_behind_the_last_run_and_no_session_behind_an_unknown_id(
    http: httpx2.Client, session: str
) -> None:
    for _ in range(2):
        run(http, session, "anything")
    cursor = http.get(f"/seq/sessions/{session}", params={"limit": 1}).json()["nextCursor"]
    unknown = http.get(f"/seq/sessions/{uuid4()}", params={"cursor": cursor})
    assert refusal(unknown) == (404, "SESSION_NOT_FOUND")
    newest = run(http, str(uuid4()), "anything")
    beyond = cursor_of_position(ListPosition(newest))
    assert http.get(f"/seq/sessions/{session}", params={"cursor": beyond}).json()["executions"] == []


def test_a_run_that_is_deleted_meanwhile_hides_no_other(
    server: RunningServer, http: httpx2.Client, session: str, faults: FaultyStore
) -> None:
    runs = [run(http, session, "anything") for _ in range(3)]
    gone = server.call(server.runtime.store.run(runs[1]))
    assert gone is not None
    faults.fail("trace_page", RunPurged(gone.no), when=lambda run_no, **_: run_no == gone.no, times=1)
    assert [each["executionId"] for each in executions(http, session)] == [runs[0], runs[2]]

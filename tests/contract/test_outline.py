"""The outline of a run over HTTP: what it says of each kind of run, its pages, and how a live one goes on."""

import gzip
import json
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import FLOWS, execute, frames, start
from tests.faulty_store import FaultyStore
from tests.outlines import Row, lines_of, rows_in
from tests.servers import server_with
from tests.waiting import eventually

SIDES = """
slug: sides
steps:
  - id: both
    type: parallel
    branches:
      slow: [{id: hold, type: wait, ms: 40}, {id: after, type: passthrough}]
      quick: [{id: ask, type: llm, model: echo, prompt: "some words"}]
  - id: choose
    type: condition
    if: "False"
    then: [{id: never, type: passthrough}]
    else: [{id: bad, type: code, on_error: continue, code: 'raise ValueError("broken")'}]
"""
STRETCH = """
slug: stretch
steps:
  - id: each
    type: loop
    over: list(range(12))
    steps: [{id: rest, type: wait, ms: 1}]
"""

server = server_with(*FLOWS, SIDES, STRETCH)


def page(http: httpx2.Client, run: str, **query: Any) -> dict[str, Any]:
    answer = http.get(f"/flow-runs/{run}/trace/outline", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def rows(http: httpx2.Client, run: str) -> list[Row]:
    return rows_in(http.get(f"/flow-runs/{run}/trace/outline").content)


def test_an_outline_stays_the_one_of_its_seq_and_the_stream_behind_it_has_the_rest(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    further = faults.hold("append", nth=6)
    run = start(server, "stretch")
    eventually(lambda: len(rows(http, run)) >= 4)
    before = page(http, run)
    further.let_go()
    events = [
        frame.data for frame in frames(http.get(f"/flow-runs/{run}/trace/stream?after={before['seq']}").text)
    ]
    assert [event["seq"] for event in events] == [before["seq"] + 1 + at for at in range(len(events))]
    ended = {event["loopIndex"] for event in events if event["eventType"] == "step_completed"}
    begun = {event["loopIndex"] for event in events if event["eventType"] == "step_started"}
    columns = zip(*(before["columns"][name] for name in ("kind", "index", "status")), strict=True)
    states = {
        index: before["statuses"][status]
        for kind, index, status in columns
        if before["kinds"][kind] == "iteration"
    }
    assert {index for index, status in states.items() if status == "running"} | begun == ended
    assert {index for index, status in states.items() if status == "completed"} == set(range(12)) - ended
    assert begun == set(range(12)) - set(states)
    # Nobody else has asked for a newer one: the older is what the server has.
    assert page(http, run, seq=before["seq"]) == before
    newer = page(http, run)
    assert newer["seq"] > before["seq"]
    assert newer["rowCount"] == 25
    assert page(http, run, seq=before["seq"]) == newer


def test_pages_join_to_the_whole(http: httpx2.Client) -> None:
    run = execute(http, "grid", parameters={"rows": [[0, 1, 2], [10, 11], [20]]})
    whole = page(http, run)
    # The last page begins behind the last row.
    firsts = range(0, whole["rowCount"] + 3, 3)
    afters = [{"after": first - 1} if first else {} for first in firsts]
    parts = [page(http, run, limit=3, seq=whole["seq"], **after) for after in afters]
    for first, part in zip(firsts, parts, strict=True):
        assert part | {"columns": {}} == whole | {"columns": {}, "first": first}
    for name, values in whole["columns"].items():
        assert [value for part in parts for value in part["columns"][name]] == values


@pytest.fixture(scope="module")
def long_run(server: RunningServer, http: httpx2.Client) -> str:
    server.push(
        "slug: long\nsteps: [{id: each, type: loop, over: 'list(range(1500))', max_concurrency: 50,"
        " steps: [{id: step, type: passthrough}]}]\n"
    )
    return execute(http, "long")


@pytest.mark.parametrize("limit", [10, 200, 50_000])
def test_an_answer_is_compressed_for_who_can_read_it(http: httpx2.Client, long_run: str, limit: int) -> None:
    """Short ones that come at once, and long ones that come in parts."""
    address = f"/flow-runs/{long_run}/trace/outline?limit={limit}"
    with http.stream("GET", address, headers={"Accept-Encoding": "identity"}) as answer:
        plain = answer.read()
        assert "content-encoding" not in answer.headers
        assert answer.headers["vary"] == "Accept-Encoding"
    assert len(json.loads(plain)["columns"]["parent"]) == min(limit, 3001)
    with http.stream("GET", address, headers={"Accept-Encoding": "br, gzip;q=0.5"}) as answer:
        assert answer.headers["content-type"] == "application/json"
        if len(plain) < 1024:
            assert "content-encoding" not in answer.headers
        else:
            assert answer.headers["content-encoding"] == "gzip"
            assert answer.headers["vary"] == "Accept-Encoding"
            assert gzip.decompress(b"".join(answer.iter_raw())) == plain
    head = http.head(address)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("form", ["/flow-runs/{}", "/seq/acme/demo/sides/runs/{}"])
def test_a_timeline_has_a_lane_for_each_step_at_the_top_and_branches_are_rows(
    http: httpx2.Client, form: str
) -> None:
    run = execute(http, "sides")
    path = f"{form.format(run)}/trace/timeline"
    found = http.get(path, params={"buckets": 20}).json()
    rows_found = rows(http, run)
    assert lines_of(rows_found, "kind", "status") == [
        "both parallel completed",
        "  slow branch completed",
        "    hold#1 step completed",
        "    after#1 step completed",
        "  quick branch completed",
        "    ask#1 step completed",
        "choose condition failed",
        "  then branch skipped",
        "    never#1 step skipped",
        "  else branch failed",
        "    bad#1 step failed",
    ]
    assert found["seq"] == page(http, run)["seq"]
    assert [(lane["name"], rows_found[lane["row"]]["name"]) for lane in found["lanes"]] == [
        ("both", "both"),
        ("choose", "choose"),
    ]
    both, choose = found["lanes"]
    count = (found["to"] - found["from"]) // found["bucketMs"]
    assert len(both["worst"]) == len(both["longest"]) == count <= 20
    assert {found["statuses"][status] for status in choose["worst"] if status >= 0} == {"failed"}
    # The hold is in the buckets of its time and in no other.
    (hold,) = [row for row in rows_found if row["name"] == "hold"]
    inside = http.get(path, params={"from": hold["start"] + 1, "to": hold["end"], "buckets": 1}).json()
    assert rows_found[inside["lanes"][0]["longest"][0]]["name"] == "hold"
    after = http.get(path, params={"from": hold["end"] + 600_000, "buckets": 1}).json()
    assert [lane["worst"] for lane in after["lanes"]] == [[-1], [-1]]

"""The outline of a run over HTTP: what it says of each kind of run, its pages, and how a live one goes on."""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from runglass.config.settings import Price
from runglass.testing import RunningServer, running_server
from tests.contract.wire import (
    FLOWS,
    cancel,
    detail,
    execute,
    http_for,
    refusal,
    start,
)
from tests.faulty_store import FaultyStore
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
TALK = 'slug: talk\nsteps: [{id: ask, type: llm, model: echo, prompt: "{{ message }}"}]\n'
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

Row = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """One on which the built-in model has a price."""
    prices = {"echo": Price(input_per_mtok=Decimal("0.30"), output_per_mtok=Decimal(1000))}
    with running_server(prices=prices) as running:
        for flow in (*FLOWS, SIDES, STRETCH, TALK):
            running.push(flow)
        yield running


def page(http: httpx2.Client, run: str, **query: Any) -> dict[str, Any]:
    answer = http.get(f"/flow-runs/{run}/trace/outline", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def rows(http: httpx2.Client, run: str) -> list[Row]:
    """The rows as objects, with words in place of numbers."""
    found = page(http, run)
    columns = found["columns"]
    assert found["first"] == 0
    assert {len(values) for values in columns.values()} == {found["rowCount"]}
    made = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in made:
        for name in ("kind", "status", "name"):
            words = found["statuses" if name == "status" else f"{name}s"]
            row[name] = words[row[name]]
    return made


def lines(http: httpx2.Client, run: str) -> list[str]:
    return [
        "  " * row["depth"]
        + row["name"]
        + (f"[{row['index']}]" if row["index"] >= 0 else "")
        + (f"#{row['attempt']}" if row["attempt"] else "")
        + f" {row['kind']} {row['status']}"
        for row in rows(http, run)
    ]


def test_nested_loops_are_rows_by_their_numbers_and_attempts_stand_below_their_step(
    http: httpx2.Client,
) -> None:
    run = execute(http, "grid", parameters={"rows": [[0, 1], [10, 11]]})
    assert lines(http, run) == [
        "rows loop retried",
        "  rows[0] iteration completed",
        "    columns loop completed",
        "      columns[0] iteration completed",
        "        cell#1 step completed",
        "      columns[1] iteration completed",
        "        cell#1 step completed",
        "  rows[1] iteration retried",
        "    columns loop retried",
        "      columns[0] iteration completed",
        "        cell#1 step completed",
        "      columns[1] iteration retried",
        "        cell#2 step retried",
        "          cell#1 attempt retried",
        "          cell#2 attempt completed",
    ]


def test_branches_are_rows_and_what_was_not_taken_is_skipped(http: httpx2.Client) -> None:
    run = execute(http, "sides")
    assert lines(http, run) == [
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
    found = {row["name"]: row for row in rows(http, run)}
    assert found["ask"]["tokens"] == found["quick"]["tokens"] == found["both"]["tokens"] > 0
    assert found["both"]["start"] == min(found["hold"]["start"], found["ask"]["start"])
    assert found["after"]["end"] >= found["hold"]["start"] + 40
    assert found["both"]["end"] == max(found["after"]["end"], found["ask"]["end"])
    assert (found["never"]["start"], found["never"]["end"]) == (-1, -1)


def test_the_rows_at_the_top_add_up_to_the_totals_of_the_run(http: httpx2.Client) -> None:
    run = execute(http, "words", message="a b c")
    totals = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["totals"]
    found = rows(http, run)
    assert sum(row["tokens"] for row in found if row["parent"] == -1) == totals["tokens"]["total"]
    (cost,) = {row["cost"] for row in found if row["parent"] == -1 and row["cost"] is not None}
    assert cost == totals["costUsd"]
    tried = [row for number, row in enumerate(found) if number not in {row["parent"] for row in found}]
    told = [row["status"] for row in tried]
    assert {name: told.count(name) for name in ("completed", "failed", "retried", "skipped")} == {
        name: totals[name] for name in ("completed", "failed", "retried", "skipped")
    }


def test_a_failed_run_ends_with_the_step_that_failed(http: httpx2.Client) -> None:
    run = str(detail(http.post("/seq/acme/demo/broken/execute", json={}))["executionId"])
    assert lines(http, run) == ["fine#1 step completed", "bad#1 step failed"]


def test_a_run_that_waits_for_tools_has_a_step_that_waits(http: httpx2.Client) -> None:
    asked = {"message": "hello", "tools": [TOOL]}
    answer = http.post("/seq/acme/demo/talk/execute", json=asked).json()
    assert answer["status"] == "tool_calls_required"
    (row,) = rows(http, answer["executionId"])
    assert (row["name"], row["status"], row["end"]) == ("ask", "waiting", -1)


def test_a_run_that_was_cancelled_has_nothing_that_goes_on(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = start(server, "endless")
    eventually(lambda: lines(http, run) == ["first#1 step completed", "hold#1 step running"])
    cancel(server, run)
    http.get(f"/flow-runs/{run}/trace/stream")
    assert lines(http, run) == ["first#1 step completed", "hold#1 step cancelled"]


def test_a_run_without_a_step_has_no_row(http: httpx2.Client, server: RunningServer) -> None:
    server.push(
        "slug: empty\nsteps: [{id: l, type: loop, over: '[]', steps: [{id: a, type: passthrough}]}]\n"
    )
    run = execute(http, "empty")
    found = page(http, run)
    assert found["rowCount"] == 0
    assert set(map(len, found["columns"].values())) == {0}
    assert found["names"] == ["l", "a"]


def test_what_an_outline_leaves_open_is_in_the_stream_behind_its_seq(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    further = faults.hold("append", nth=6)
    run = start(server, "stretch")
    eventually(lambda: len(rows(http, run)) >= 4)
    before = page(http, run)
    further.let_go()
    text = http.get(f"/flow-runs/{run}/trace/stream?after={before['seq']}").text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert [event["seq"] for event in events] == list(
        range(before["seq"] + 1, before["seq"] + 1 + len(events))
    )
    ended = {event["loopIndex"] for event in events if event["eventType"] == "step_completed"}
    begun = {event["loopIndex"] for event in events if event["eventType"] == "step_started"}
    states = {}
    for name, index, status in zip(
        *(before["columns"][key] for key in ("kind", "index", "status")), strict=True
    ):
        if before["kinds"][name] == "iteration":
            states[index] = before["statuses"][status]
    assert {index for index, status in states.items() if status == "running"} | begun == ended
    assert {index for index, status in states.items() if status == "completed"} == set(range(12)) - ended
    assert begun == set(range(12)) - set(states)
    assert len(rows(http, run)) == 25


def test_pages_join_to_the_whole(http: httpx2.Client) -> None:
    run = execute(http, "grid", parameters={"rows": [[0, 1, 2], [10, 11], [20]]})
    whole = page(http, run)
    columns: dict[str, list[Any]] = {name: [] for name in whole["columns"]}
    after: dict[str, Any] = {}
    while True:
        part = page(http, run, limit=3, seq=whole["seq"], **after)
        assert part | {"columns": {}, "first": 0} == whole | {"columns": {}}
        if not part["columns"]["parent"]:
            break
        for name, values in part["columns"].items():
            columns[name] += values
        after = {"after": part["first"] + len(part["columns"]["parent"]) - 1}
    assert columns == whole["columns"]


def test_pages_of_one_seq_are_of_one_outline_although_the_run_goes_on(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    further = faults.hold("append", nth=6)
    run = start(server, "stretch")
    eventually(lambda: len(rows(http, run)) >= 4)
    before = page(http, run)
    further.let_go()
    assert "event: flow_completed" in http.get(f"/flow-runs/{run}/trace/stream").text
    # Nobody else has asked for a newer one: the older is what the server has.
    assert page(http, run, seq=before["seq"]) == before
    newer = page(http, run)
    assert newer["seq"] > before["seq"]
    assert newer["rowCount"] == 25
    assert page(http, run, seq=before["seq"]) == newer


def test_a_draft_that_has_changed_since_hides_no_step(server: RunningServer, http: httpx2.Client) -> None:
    server.push(
        "slug: moved\nsteps: [{id: a, type: passthrough}, {id: b, type: passthrough}]\n", publish=False
    )
    run = execute(http, "moved")
    server.push(
        "slug: moved\nsteps: [{id: c, type: passthrough}, {id: b, type: passthrough}]\n", publish=False
    )
    assert lines(http, run) == ["b#1 step completed", "a#1 step completed"]


@pytest.fixture(scope="module")
def long_run(server: RunningServer, http: httpx2.Client) -> str:
    server.push(
        "slug: long\nsteps: [{id: each, type: loop, over: 'list(range(1500))', max_concurrency: 50,"
        " steps: [{id: step, type: passthrough}]}]\n"
    )
    return execute(http, "long")


@pytest.mark.parametrize("form", ["/flow-runs/{}", "/seq/acme/demo/long/runs/{}"])
@pytest.mark.parametrize("limit", [10, 50_000])
def test_an_answer_is_compressed_for_who_can_read_it(
    http: httpx2.Client, long_run: str, form: str, limit: int
) -> None:
    """Short ones that come at once, and long ones that come in parts."""
    address = f"{form.format(long_run)}/trace/outline?limit={limit}"
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


@pytest.mark.usefixtures("long_run")
def test_a_long_run_is_made_an_outline_of_once(server: RunningServer, http: httpx2.Client) -> None:
    """Made in threads, its rows are in the order of the loop; for the second page no step is read."""
    run = execute(http, "long")
    first = page(http, run, limit=1000)
    with closing(sqlite3.connect(server.runtime.settings.database)) as database, database:
        database.execute("DELETE FROM step WHERE run_no = (SELECT no FROM run WHERE id = ?)", (run,))
    last = page(http, run, after=999, limit=5000)
    assert first["rowCount"] == last["rowCount"] == 3001
    indexes = first["columns"]["index"] + last["columns"]["index"]
    assert indexes == [-1, *(index for number in range(1500) for index in (number, -1))]


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=0", "limit=200001", "seq=-1", "seq=none"])
def test_a_page_that_is_none_is_refused(http: httpx2.Client, long_run: str, query: str) -> None:
    answer = http.get(f"/flow-runs/{long_run}/trace/outline?{query}")
    assert refusal(answer) == (422, "INVALID_REQUEST")
    assert query.partition("=")[0] in detail(answer)["message"]


def test_an_attempt_that_cannot_be_read_is_an_error_that_names_the_run(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = execute(http, "anything")
    with closing(sqlite3.connect(server.runtime.settings.database)) as database, database:
        sql = "UPDATE step SET data = ? WHERE run_no = (SELECT no FROM run WHERE id = ?)"
        assert database.execute(sql, (b'{"costUsd": 7}', run)).rowcount == 1
    answer = http.get(f"/flow-runs/{run}/trace/outline")
    assert refusal(answer) == (500, "INTERNAL_ERROR")
    assert detail(answer)["executionId"] == run


@pytest.fixture(scope="module")
def small() -> Iterator[tuple[RunningServer, httpx2.Client]]:
    """A server that has room for next to no outline."""
    with running_server(memory_limit_bytes=1 << 20) as server, http_for(server, server.key) as http:
        server.push(
            "slug: long\nsteps: [{id: each, type: loop, over: 'list(range(1000))', max_concurrency: 50,"
            " steps: [{id: step, type: passthrough}]}]\n"
        )
        yield server, http


def test_an_outline_that_there_is_no_room_for_is_made_again(
    small: tuple[RunningServer, httpx2.Client],
) -> None:
    _, http = small
    run = execute(http, "long")
    assert page(http, run, after=5, limit=3) == page(http, run, after=5, limit=3)
    assert page(http, run)["rowCount"] == 2001


@pytest.mark.parametrize("form", ["/flow-runs/{}", "/seq/acme/demo/sides/runs/{}"])
def test_a_timeline_has_a_lane_for_each_step_at_the_top(http: httpx2.Client, form: str) -> None:
    run = execute(http, "sides")
    path = f"{form.format(run)}/trace/timeline"
    found = http.get(path, params={"buckets": 20}).json()
    rows_found = rows(http, run)
    assert found["seq"] == page(http, run)["seq"]
    assert [(lane["name"], rows_found[lane["row"]]["name"]) for lane in found["lanes"]] == [
        ("both", "both"),
        ("choose", "choose"),
    ]
    both, choose = found["lanes"]
    count = (found["to"] - found["from"]) // found["bucketMs"]
    for lane in (both, choose):
        assert len(lane["worst"]) == len(lane["longest"]) == count <= 20
    assert {found["statuses"][status] for status in choose["worst"] if status >= 0} == {"failed"}
    assert {rows_found[row]["name"] for row in both["longest"] if row >= 0} >= {"hold"}
    # The hold is in the buckets of its time and in no other.
    (hold,) = [row for row in rows_found if row["name"] == "hold"]
    inside = http.get(path, params={"from": hold["start"] + 1, "to": hold["end"], "buckets": 1}).json()
    assert rows_found[inside["lanes"][0]["longest"][0]]["name"] == "hold"
    after = http.get(path, params={"from": hold["end"] + 600_000, "buckets": 1}).json()
    assert [lane["worst"] for lane in after["lanes"]] == [[-1], [-1]]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("from=5&to=5", "`to`"),
        ("buckets=0", "buckets"),
        ("buckets=2001", "buckets"),
        ("from=-1", "from"),
        ("to=x", "to"),
    ],
)
def test_a_timeline_of_no_time_is_refused(http: httpx2.Client, long_run: str, query: str, named: str) -> None:
    answer = http.get(f"/flow-runs/{long_run}/trace/timeline?{query}")
    assert refusal(answer) == (422, "INVALID_REQUEST")
    assert named in detail(answer)["message"]


def test_a_timeline_of_a_long_run_is_compressed(http: httpx2.Client, long_run: str) -> None:
    path = f"/flow-runs/{long_run}/trace/timeline?buckets=2000&to=1000000"
    with http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        (lane,) = json.loads(gzip.decompress(b"".join(answer.iter_raw())))["lanes"]
    assert set(lane["longest"]) - {-1} <= set(range(3001))

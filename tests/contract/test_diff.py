"""What differs between two runs: rows, paths, the first difference, and its bounds.

And the outline of one run: what it says of each kind of run, its pages, and how a live one goes on.
"""

import gzip
import json
from typing import Any

import httpx2
import pytest

from runglass.diff.run_diff import RunDiff
from runglass.server.services.run_diff import diff_runs
from runglass.testing import RunningServer
from tests.contract.wire import FLOWS, detail, execute, frames, http_for, read, refusal, start, stored_run
from tests.faulty_store import FaultyStore
from tests.outlines import Row, lines_of, rows_in
from tests.servers import server_with
from tests.waiting import eventually

SHAPE = """
slug: shape
steps:
  - id: words
    type: code
    code: 'return {"words": [word for word in initial["words"]]}'
  - id: each
    type: loop
    over: words
    as: word
    max_concurrency: 4
    steps:
      - {id: slow, type: wait, ms: 1}
      - id: say
        type: code
        retry: {max_attempts: 2, initial_delay_ms: 0}
        code: |
          if word == "again" and attempt == 1:
              raise ValueError("not yet")
          if word == "never":
              raise ValueError("no")
          return {"text": word.upper()}
"""
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
JsonObject = dict[str, Any]

server = server_with(*FLOWS, SHAPE, SIDES, STRETCH, capture="full")


def run(http: httpx2.Client, *words: str) -> str:
    return execute(http, "shape", parameters={"words": list(words)})


def diff(http: httpx2.Client, a: str, b: str, **query: str) -> JsonObject:
    return read(http, f"/flow-runs/{a}/diff/{b}", **query)


def step_diff(http: httpx2.Client, run_id: str, step: str, **query: str) -> JsonObject:
    return read(http, f"/flow-runs/{run_id}/steps/{step}/diff", **query)


def paths_of(compared: JsonObject, field: str) -> Any:
    """Where the field of two attempts differs."""
    return next(change["paths"] for change in compared["changes"] if change["field"] == field)


def addresses(found: JsonObject) -> list[str]:
    return [
        row["stepId"] + "".join(f"[{index}]" for index in row.get("loopPath", ())) + f" {row['attempt']}"
        for row in found["rows"]
    ]


def test_the_first_divergence_is_the_first_in_the_flow_and_its_rows_say_where_values_differ(
    http: httpx2.Client,
) -> None:
    a, b, same = run(http, "a", "gut", "c"), run(http, "a", "good", "c"), run(http, "a", "gut", "c")
    found = diff(http, a, same)
    assert (found.pop("a")["id"], found.pop("b")["id"]) == (a, same)
    counts = {"differentRows": 0, "sameRows": 7, "sizeOnlyRows": 0}
    assert found == {"same": True, "flows": "same", "rows": [], **counts, "cut": False}
    found = diff(http, a, b)
    assert not found["same"]
    assert addresses(found) == ["words 1", "slow[1] 1", "say[1] 1"]
    sentence = 'words: input differs at words[1]: "gut" / "good"'
    assert found["firstDivergence"] == {"sentence": sentence, "stepId": "words", "attempt": 1}
    assert paths_of(found["rows"][2], "output") == [
        {"path": "text", "kind": "changed", "a": "GUT", "b": "GOOD"}
    ]
    assert (found["differentRows"], found["sameRows"]) == (3, 4)
    with_same = diff(http, a, b, all="true")
    in_order = ["words 1"] + [f"{step}[{index}] 1" for index in range(3) for step in ("slow", "say")]
    assert addresses(with_same) == in_order
    assert [row for row in with_same["rows"] if row["changes"]] == found["rows"]


def test_a_run_that_others_may_not_see_is_not_found_whichever_it_is(
    server: RunningServer, http: httpx2.Client
) -> None:
    own = run(http, "a")
    server.push(SHAPE, org="acme", project="others")
    with http_for(server, server.make_key("acme", "others")) as stranger:
        answer = stranger.post("/seq/acme/others/shape/execute", json={"parameters": {"words": ["a"]}})
        theirs = answer.json()["executionId"]
        for pair in ((own, theirs), (theirs, own)):
            path = "/flow-runs/{}/diff/{}".format(*pair)
            for asks, unseen in ((stranger, own), (http, theirs)):
                answer = asks.get(path)
                assert refusal(answer) == (404, "RUN_NOT_FOUND")
                assert detail(answer)["executionId"] == unseen


def test_a_run_that_is_purged_while_it_is_read_is_not_found(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    a, b = run(http, "a"), run(http, "b")
    store = server.runtime.store

    async def purge(run_no: int, keys: Any, *, limit_bytes: int) -> None:
        await store.purge_runs([run_no])
        while not await store.purge_rows([run_no], limit_rows=100, limit_bytes=1 << 20):
            pass

    faults.before("attempt_data", purge)
    assert refusal(http.get(f"/flow-runs/{a}/diff/{b}")) == (404, "RUN_NOT_FOUND")


def diff_within(server: RunningServer, *runs: str, **limits: int) -> RunDiff:
    """What the server would answer if it compared no more than that."""
    a, b = [stored_run(server, run_id) for run_id in runs]
    return server.call(diff_runs(server.runtime.store, a, b, with_same=False, **limits))


def test_beyond_the_limit_of_attempts_the_rest_is_left_out_and_none_is_said_to_be_missing(
    server: RunningServer, http: httpx2.Client
) -> None:
    inside, behind = ({"id": name, "type": "passthrough"} for name in ("in", "behind"))
    loop = {"id": "l", "type": "loop", "over": "over", "steps": [inside]}
    server.push(json.dumps({"slug": "many", "steps": [loop, behind]}))
    runs = [execute(http, "many", parameters={"over": list(range(count))}) for count in (30, 20)]
    found = diff_within(server, *runs)
    assert (found.different_rows, found.cut, found.same) == (11, False, False)
    for both in (runs, runs[::-1]):
        found = diff_within(server, *both, most_attempts=25)
        assert (found.different_rows, found.cut, found.same) == (5, True, False)
    found = diff_within(server, *runs, most_attempts=10)
    assert (found.different_rows, found.same_rows, found.cut, found.same) == (0, 10, True, False)


def test_two_iterations_of_a_step_are_compared(http: httpx2.Client) -> None:
    run_id = run(http, "one", "two", "one")
    found = step_diff(http, run_id, "say", loop_index="0", with_loop_index="1")
    assert (found["stepId"], found["same"]) == ("say", False)
    assert (found["a"]["loopPath"], found["b"]["loopPath"]) == ([0], [1])
    assert paths_of(found, "output") == [{"path": "text", "kind": "changed", "a": "ONE", "b": "TWO"}]
    found = step_diff(http, run_id, "say", loop_index="0", with_loop_index="2")
    assert paths_of(found, "input") == [{"path": "index", "kind": "changed", "a": 0, "b": 2}]
    for query in ({"with_loop_index": "7"}, {"attempt": "3"}, {"with_position": "900"}):
        none = http.get(f"/flow-runs/{run_id}/steps/say/diff", params=query)
        assert refusal(none) == (404, "STEP_NOT_FOUND")


def test_two_attempts_of_a_step_are_compared(http: httpx2.Client) -> None:
    run_id = run(http, "again")
    found = step_diff(http, run_id, "say", attempt="1", with_attempt="2")
    assert [found[side]["status"] for side in "ab"] == ["failed", "completed"]
    fields = [change["field"] for change in found["changes"] if change["field"] != "durationMs"]
    assert fields == ["status", "error"]
    same = step_diff(http, run_id, "say", attempt="2")
    assert (same["same"], same["changes"]) == (True, [])


def page(http: httpx2.Client, run: str, **query: Any) -> dict[str, Any]:
    return read(http, f"/flow-runs/{run}/trace/outline", **query)


def rows(http: httpx2.Client, run: str) -> list[Row]:
    return rows_in(http.get(f"/flow-runs/{run}/trace/outline").content)


def test_an_outline_stays_the_one_of_its_seq_and_the_stream_behind_it_has_the_rest(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    further = faults.hold("append", nth=6)
    run = start(server, "stretch")
    eventually(lambda: len(rows(http, run)) >= 4)
    answer = http.get(f"/flow-runs/{run}/trace/outline")
    before = answer.json()
    further.let_go()
    stream = http.get(f"/flow-runs/{run}/trace/stream?after={before['seq']}").text
    events = [frame.data for frame in frames(stream)]
    assert [event["seq"] for event in events] == [before["seq"] + 1 + at for at in range(len(events))]
    ended = {event["loopIndex"] for event in events if event["eventType"] == "step_completed"}
    begun = {event["loopIndex"] for event in events if event["eventType"] == "step_started"}
    iterations = [row for row in rows_in(answer.content) if row["kind"] == "iteration"]
    states = {row["index"]: row["status"] for row in iterations}
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

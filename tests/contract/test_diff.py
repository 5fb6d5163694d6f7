"""What differs between two runs, told by the server: rows, paths, the first difference, and its bounds."""

from typing import Any

import httpx2
import pytest

from runglass.diff.run_diff import RunDiff
from runglass.server.services.run_diff import diff_runs
from runglass.testing import RunningServer
from tests.contract.wire import execute, http_for, refusal
from tests.faulty_store import FaultyStore

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
JsonObject = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    server.push(SHAPE)


def run(http: httpx2.Client, *words: str, **more: Any) -> str:
    return execute(http, "shape", parameters={"words": list(words)}, **more)


def diff(http: httpx2.Client, a: str, b: str, **query: str) -> JsonObject:
    answer = http.get(f"/flow-runs/{a}/diff/{b}", params=query)
    assert answer.status_code == 200, answer.text
    found: JsonObject = answer.json()
    return found


def addresses(found: JsonObject) -> list[str]:
    return [
        row["stepId"] + "".join(f"[{index}]" for index in row.get("loopPath", ())) + f" {row['attempt']}"
        for row in found["rows"]
    ]


def test_two_runs_with_the_same_inputs_are_the_same(http: httpx2.Client) -> None:
    a, b = run(http, "a", "b"), run(http, "a", "b")
    found = diff(http, a, b)
    assert (found["a"]["id"], found["b"]["id"]) == (a, b)
    assert "firstDivergence" not in found
    assert {name: value for name, value in found.items() if name not in ("a", "b")} == {
        "same": True,
        "flows": "same",
        "rows": [],
        "differentRows": 0,
        "sameRows": 5,
        "sizeOnlyRows": 0,
        "cut": False,
    }


def test_the_first_divergence_is_the_first_in_the_flow_and_its_rows_say_where_values_differ(
    http: httpx2.Client,
) -> None:
    found = diff(http, run(http, "a", "gut", "c"), run(http, "a", "good", "c"))
    assert not found["same"]
    assert addresses(found) == ["words 1", "slow[1] 1", "say[1] 1"]
    assert found["firstDivergence"] == {
        "sentence": 'words: input differs at words[1]: "gut" / "good"',
        "stepId": "words",
        "attempt": 1,
    }
    output = next(change for change in found["rows"][2]["changes"] if change["field"] == "output")
    assert output["paths"] == [{"path": "text", "kind": "changed", "a": "GUT", "b": "GOOD"}]
    assert (found["differentRows"], found["sameRows"]) == (3, 4)


def test_all_lists_the_attempts_that_do_not_differ_too(http: httpx2.Client) -> None:
    found = diff(http, run(http, "a", "b"), run(http, "a", "c"), all="true")
    assert addresses(found) == ["words 1", "slow[0] 1", "say[0] 1", "slow[1] 1", "say[1] 1"]
    assert [bool(row["changes"]) for row in found["rows"]] == [True, False, False, True, True]


def test_a_run_that_others_may_not_see_is_not_found_whichever_it_is(
    server: RunningServer, http: httpx2.Client
) -> None:
    own = run(http, "a")
    server.push(SHAPE, org="acme", project="others")
    with http_for(server, server.make_key("acme", "others")) as stranger:
        answer = stranger.post("/seq/acme/others/shape/execute", json={"parameters": {"words": ["a"]}})
        theirs = answer.json()["executionId"]
        for pair in ((own, theirs), (theirs, own)):
            answer = stranger.get(f"/flow-runs/{pair[0]}/diff/{pair[1]}")
            assert refusal(answer) == (404, "RUN_NOT_FOUND")
            assert answer.json()["detail"]["executionId"] == own
            assert refusal(http.get(f"/flow-runs/{pair[0]}/diff/{pair[1]}")) == (404, "RUN_NOT_FOUND")


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
    store = server.runtime.store

    async def found() -> RunDiff:
        a, b = [run for run_id in runs if (run := await store.run(run_id))]
        return await diff_runs(store, a, b, with_same=False, **limits)

    return server.call(found())


def test_beyond_the_limit_of_attempts_the_rest_is_left_out_and_none_is_said_to_be_missing(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push("slug: many\nsteps: [{id: l, type: loop, over: over, steps: [{id: in, type: passthrough}]}]")
    runs = [execute(http, "many", parameters={"over": list(range(count))}) for count in (30, 20)]
    found = diff_within(server, *runs)
    assert (found.different_rows, found.cut, found.same) == (10, False, False)
    found = diff_within(server, *runs, most_attempts=25)
    assert (found.different_rows, found.cut, found.same) == (5, True, False)
    found = diff_within(server, *runs, most_attempts=10)
    assert (found.different_rows, found.same_rows, found.cut, found.same) == (0, 10, True, False)


def step_diff(http: httpx2.Client, run_id: str, step: str, **query: str) -> JsonObject:
    answer = http.get(f"/flow-runs/{run_id}/steps/{step}/diff", params=query)
    assert answer.status_code == 200, answer.text
    found: JsonObject = answer.json()
    return found


def test_two_iterations_of_a_step_are_compared(http: httpx2.Client) -> None:
    run_id = run(http, "one", "two", "one")
    found = step_diff(http, run_id, "say", loop_index="0", with_loop_index="1")
    assert (found["stepId"], found["same"]) == ("say", False)
    assert (found["a"]["loopPath"], found["b"]["loopPath"]) == ([0], [1])
    output = next(change for change in found["changes"] if change["field"] == "output")
    assert output["paths"] == [{"path": "text", "kind": "changed", "a": "ONE", "b": "TWO"}]
    places = [
        change["paths"]
        for change in step_diff(http, run_id, "say", loop_index="0", with_loop_index="2")["changes"]
        if change["field"] == "input"
    ]
    assert places == [[{"path": "index", "kind": "changed", "a": 0, "b": 2}]]


def test_two_attempts_of_a_step_are_compared(http: httpx2.Client) -> None:
    run_id = run(http, "again")
    found = step_diff(http, run_id, "say", attempt="1", with_attempt="2")
    assert [found[side]["status"] for side in "ab"] == ["failed", "completed"]
    fields = [change["field"] for change in found["changes"] if change["field"] != "durationMs"]
    assert fields == ["status", "error"]
    same = step_diff(http, run_id, "say", attempt="2")
    assert (same["same"], same["changes"]) == (True, [])


def test_an_attempt_that_is_not_there_is_compared_with_none(http: httpx2.Client) -> None:
    run_id = run(http, "one")
    path = f"/flow-runs/{run_id}/steps/say/diff"
    for query in ({"with_loop_index": "7"}, {"attempt": "3"}, {"with_position": "900"}):
        assert refusal(http.get(path, params=query)) == (404, "STEP_NOT_FOUND")

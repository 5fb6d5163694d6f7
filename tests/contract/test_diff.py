"""What differs between two runs, told by the server: rows, paths, the first difference, and its bounds."""

import itertools
import json
from typing import Any

import httpx2
import pytest

from runglass.diff.run_diff import RunDiff
from runglass.server.services.run_diff import diff_runs
from runglass.store.records import Append, StepRow
from runglass.testing import RunningServer
from tests.contract.wire import execute, http_for, refusal
from tests.faulty_store import FaultyStore
from tests.records import new_run

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
ADDED = SHAPE.replace("  - id: each", "  - {id: between, type: passthrough}\n  - id: each")
JsonObject = dict[str, Any]
NUMBERS = itertools.count(1)
"""Of runs that are written into the store."""


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    server.push(SHAPE)


def run(http: httpx2.Client, *words: str, **more: Any) -> str:
    return execute(http, "shape", parameters={"words": list(words)}, **more)


def failed_run(http: httpx2.Client, *words: str) -> str:
    answer = http.post("/seq/acme/demo/shape/execute", json={"parameters": {"words": list(words)}})
    found: str = answer.json()["detail"]["executionId"]
    return found


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


def test_what_models_were_asked_and_answered_is_compared(server: RunningServer, http: httpx2.Client) -> None:
    flow = "slug: asking\nsteps: [{id: ask, type: llm, model: echo, system: SYSTEM, prompt: Hi}]\n"
    runs = []
    for system in ("Be brief.", "Be brief.", "Be kind."):
        server.push(flow.replace("SYSTEM", system))
        runs.append(execute(http, "asking"))
    assert diff(http, runs[0], runs[1])["same"]
    (row,) = diff(http, runs[1], runs[2])["rows"]
    asked = next(change for change in row["changes"] if change["field"] == "modelRequests")
    assert asked["paths"] == [
        {"path": "[0].request.system", "kind": "changed", "a": "Be brief.", "b": "Be kind."}
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


def test_every_attempt_is_compared_and_one_that_only_one_run_has_is_said_to_be(http: httpx2.Client) -> None:
    found = diff(http, run(http, "a", "b"), run(http, "a", "again"))
    assert addresses(found) == ["words 1", "slow[1] 1", "say[1] 1", "say[1] 2"]
    first, second = found["rows"][2:]
    changes = {change["field"]: change for change in first["changes"]}
    assert (changes["status"]["a"], changes["status"]["b"]) == ("completed", "failed")
    assert {"path": "code", "kind": "added", "b": "CODE_ERROR"} in changes["error"]["paths"]
    assert (second["inA"], second["inB"]) == (False, True)


def test_runs_that_end_differently_differ(http: httpx2.Client) -> None:
    found = diff(http, run(http, "a", "b"), failed_run(http, "a", "never"))
    assert (found["a"]["status"], found["b"]["status"]) == ("completed", "failed")
    assert found["b"]["error"]["stepId"] == "say"
    assert not found["same"]


def test_the_other_way_round_the_same_rows_are_told(http: httpx2.Client) -> None:
    a, b = run(http, "a", "b"), run(http, "a", "again")
    one, other = diff(http, a, b), diff(http, b, a)
    assert addresses(one) == addresses(other)
    assert one["firstDivergence"]["stepId"] == other["firstDivergence"]["stepId"]
    assert [row["inA"] for row in one["rows"]] == [row["inB"] for row in other["rows"]]


def test_a_step_that_one_version_has_and_the_other_has_not_stands_where_it_runs(
    server: RunningServer, http: httpx2.Client
) -> None:
    a = run(http, "a")
    server.push(ADDED)
    b = run(http, "a")
    server.push(SHAPE)
    found = diff(http, a, b)
    assert (found["flows"], addresses(found)) == ("versions", ["between 1"])
    assert found["firstDivergence"]["sentence"] == "between: only in the second run (completed)"


def test_runs_of_different_flows_are_compared_by_their_steps(http: httpx2.Client) -> None:
    grid = execute(http, "grid", parameters={"rows": [[0]]})
    found = diff(http, grid, run(http, "a"))
    assert found["flows"] == "different"
    assert [row["inA"] for row in found["rows"]].count(True) == 1


@pytest.mark.parametrize("capture", ["metadata_only", "off"])
def test_without_content_sizes_are_compared_and_the_answer_says_so(
    server: RunningServer, http: httpx2.Client, capture: str
) -> None:
    server.push(SHAPE.replace("slug: shape", f"slug: shape-{capture.replace('_', '-')}\ncapture: {capture}"))
    slug = f"shape-{capture.replace('_', '-')}"
    a, b = (execute(http, slug, parameters={"words": [word]}) for word in ("a", "longer"))
    found = diff(http, a, b)
    assert found["sizeOnlyRows"] == 3
    fields = {change["field"] for row in found["rows"] for change in row["changes"]}
    sizes = {"inputSizeBytes", "outputSizeBytes"}
    assert fields - {"durationMs"} == (sizes if capture == "metadata_only" else set())


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


def stored_run(server: RunningServer, texts: list[str]) -> str:
    """A run of a loop whose iterations have put out these texts, as the store would have it."""

    async def write() -> str:
        store = server.runtime.store
        flow = await store.find_flow((await store.ensure_project("acme", "demo")).id, "shape")
        assert flow is not None
        run_id = f"01900000-0000-7000-8000-{next(NUMBERS):012d}"
        summary = {"id": run_id, "flowId": flow.id, "status": "completed", "version": 1}
        new = new_run(flow.project_id, flow.id, id=run_id, version=1, summary=json.dumps(summary).encode())
        created = await store.create_run(new)
        steps = [
            StepRow(
                at + 1,
                "say",
                str(at),
                1,
                "completed",
                json.dumps(
                    {
                        "stepId": "say",
                        "loopPath": [at],
                        "status": "completed",
                        "outputContext": {"text": text},
                    }
                ).encode(),
            )
            for at, text in enumerate(texts)
        ]
        batch = Append(
            run_no=created.no,
            head=0,
            fence=created.fence,
            events=[b"{}"],
            steps=steps,
            status="completed",
            summary=json.dumps(summary).encode(),
        )
        await store.append(batch)
        return run_id

    return server.call(write())


def diff_within(server: RunningServer, *runs: str, **limits: int) -> RunDiff:
    """What the server would answer if it compared no more than that."""
    store = server.runtime.store

    async def found() -> RunDiff:
        a, b = [run for run_id in runs if (run := await store.run(run_id))]
        return await diff_runs(store, a, b, with_same=False, **limits)

    return server.call(found())


def test_beyond_the_limit_of_attempts_the_rest_is_left_out_and_none_is_said_to_be_missing(
    server: RunningServer,
) -> None:
    texts = ["t"] * 3000
    runs = stored_run(server, texts), stored_run(server, texts[:2000])
    found = diff_within(server, *runs)
    assert (found.different_rows, found.cut, found.same) == (1000, False, False)
    found = diff_within(server, *runs, most_attempts=2500)
    assert (found.different_rows, found.cut, found.same) == (500, True, False)
    found = diff_within(server, *runs, most_attempts=1000)
    assert (found.different_rows, found.same_rows, found.cut, found.same) == (0, 1000, True, False)


def test_of_many_attempts_that_differ_as_many_are_listed_as_fit_and_all_are_counted(
    server: RunningServer, http: httpx2.Client
) -> None:
    a, b = (stored_run(server, [f"{text} {at}" for at in range(10_500)]) for text in ("gut", "good"))
    found = diff(http, a, b)
    assert (len(found["rows"]), found["differentRows"], found["cut"]) == (10_000, 10_500, True)
    assert found["rows"][9_999]["changes"][0]["paths"] == [
        {"path": "text", "kind": "changed", "a": "gut 9999", "b": "good 9999"}
    ]


def test_a_parameter_that_means_nothing_is_refused(http: httpx2.Client) -> None:
    a = run(http, "a")
    assert refusal(http.get(f"/flow-runs/{a}/diff/{a}?all=perhaps")) == (422, "INVALID_REQUEST")


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
    assert refusal(http.get(path, params={"with_attempt": "all"})) == (422, "INVALID_REQUEST")

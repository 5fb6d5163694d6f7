"""Traces, single steps and the list of runs, in both path forms."""

from typing import Any

import httpx2
import pytest

from tests.contract.wire import detail, execute, refusal

RUN_FIELDS = {
    *("id", "flowId", "flowSlug", "version", "status", "triggerType", "startedAt", "stepCount", "totals"),
}
ENDED_RUN_FIELDS = RUN_FIELDS | {"completedAt", "durationMs", "startedBy"}
CONTENT_FIELDS = {"input", "inputPreview", "result", "resultPreview"}
STEP_FIELDS = {"attempt", "startedAt", "status", "stepId", "truncated", "inputSizeBytes"}
OPTIONAL_STEP_FIELDS = {
    *("completedAt", "durationMs", "loopIndex", "loopPath", "modelUsed", "tokens", "costUsd", "finishReason"),
    *("inputContext", "outputContext", "errorContext", "outputSizeBytes", "modelCalls"),
}


def check_step(step: dict[str, Any]) -> None:
    """Every field is one of the contract's, and none is null."""
    needed = {"attempt", "status", "stepId", "truncated"} if step["status"] == "skipped" else STEP_FIELDS
    assert needed <= set(step) <= STEP_FIELDS | OPTIONAL_STEP_FIELDS
    assert None not in step.values()


@pytest.fixture(scope="module")
def words(http: httpx2.Client) -> str:
    return execute(http, "words", message="a b")


@pytest.fixture(scope="module")
def grid(http: httpx2.Client) -> str:
    return execute(http, "grid", parameters={"rows": [[0, 1], [10, 11, 12]]})


@pytest.fixture(params=["/flow-runs/{}", "/seq/acme/demo/words/runs/{}"])
def base(request: pytest.FixtureRequest, words: str) -> str:
    form: str = request.param
    return form.format(words)


@pytest.fixture(params=["/flow-runs/{}", "/seq/acme/demo/grid/runs/{}"])
def cells(request: pytest.FixtureRequest, grid: str) -> str:
    form: str = request.param
    return form.format(grid) + "/steps/cell/trace"


def test_a_trace_has_the_run_and_its_steps_in_order_of_first_start(
    http: httpx2.Client, base: str, words: str
) -> None:
    answer = http.get(f"{base}/trace")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    trace = answer.json()
    assert list(trace) == ["flowRun", "steps"]
    run = trace["flowRun"]
    assert set(run) == ENDED_RUN_FIELDS | {"expectedSteps", *CONTENT_FIELDS}
    assert run["expectedSteps"] == len(trace["steps"])
    assert (run["id"], run["status"], run["stepCount"]) == (words, "completed", 5)
    assert run["startedAt"].endswith("Z")
    assert isinstance(run["durationMs"], int)
    for step in trace["steps"]:
        check_step(step)
    assert [(s["stepId"], s.get("loopIndex"), s["attempt"], s["status"]) for s in trace["steps"]] == [
        ("split", None, 1, "completed"),
        ("say", 0, 1, "completed"),
        ("shout", 0, 1, "completed"),
        ("say", 1, 1, "completed"),
        ("shout", 1, 2, "completed"),
        ("few", None, 1, "skipped"),
        ("many", None, 1, "completed"),
    ]


def test_a_step_has_its_model_tokens_and_output(http: httpx2.Client, base: str) -> None:
    step = http.get(f"{base}/steps/say/trace?loop_index=0").json()
    assert step["modelUsed"] == "echo"
    assert sorted(step["tokens"]) == ["completion", "prompt", "total"]
    assert "costUsd" not in step
    assert step["outputContext"] == {"text": "a"}
    assert step["truncated"] is False


def attempt(http: httpx2.Client, path: str, query: str) -> Any:
    """Iteration and attempt of the answer, or of all in it."""
    answer = http.get(f"{path}?{query}")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    steps = body.get("attempts", [body])
    for step in steps:
        check_step(step)
    found = [(tuple(step["loopPath"]), step["attempt"]) for step in steps]
    return found if "attempts" in body else found[0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ((1, 2), 1)),
        ("attempt=latest", ((1, 2), 1)),
        ("attempt=1", ((1, 2), 1)),
        ("loop_index=1,1", ((1, 1), 2)),
        ("loop_index=1,1&attempt=1", ((1, 1), 1)),
        ("loop_index=1,1&attempt=2", ((1, 1), 2)),
        ("loop_index=0,1", ((0, 1), 1)),
        ("loop_index=2", ((1, 2), 1)),
        ("loop_index=0", ((1, 0), 1)),
        ("loop_index=0%2C1", ((0, 1), 1)),
        ("attempt=all&loop_index=1,1", [((1, 1), 1), ((1, 1), 2)]),
        ("attempt=all&loop_index=1", [((0, 1), 1), ((1, 1), 1), ((1, 1), 2)]),
        ("attempt=all", [((0, 0), 1), ((0, 1), 1), ((1, 0), 1), ((1, 1), 1), ((1, 1), 2), ((1, 2), 1)]),
    ],
)
def test_attempt_and_loop_index_select_the_attempt(
    http: httpx2.Client, cells: str, query: str, expected: Any
) -> None:
    assert attempt(http, cells, query) == expected


@pytest.mark.parametrize(
    "step",
    [
        "none/trace",
        "split/trace?attempt=2",
        "split/trace?loop_index=0",
        "shout/trace?loop_index=2",
        "shout/trace?loop_index=0&attempt=2",
        "shout/trace?loop_index=0,1",
        "shout/trace?attempt=all&loop_index=7",
        "each/trace",
    ],
)
def test_an_unknown_step_attempt_or_iteration_is_not_found(http: httpx2.Client, base: str, step: str) -> None:
    answer = http.get(f"{base}/steps/{step}")
    assert refusal(answer) == (404, "STEP_NOT_FOUND")
    assert detail(answer)["stepId"] == step.split("/")[0]
    assert detail(answer)["executionId"] == base.rpartition("/")[2]


def test_both_spellings_of_a_query_parameter_are_taken(http: httpx2.Client, base: str) -> None:
    path = f"{base}/steps/shout/trace?attempt=1"
    assert http.get(f"{path}&loopIndex=0").json() == http.get(f"{path}&loop_index=0").json()
    assert http.get(f"{path}&loopIndex=0").json()["loopIndex"] == 0
    for wrong in ("loopIndex=x", "loopIndex=0&loop_index=0"):
        assert refusal(http.get(f"{path}&{wrong}"), "`loop_index`") == (422, "INVALID_REQUEST")


def test_an_unknown_query_parameter_is_ignored(http: httpx2.Client, base: str) -> None:
    for path in (f"{base}/trace", f"{base}/steps/split/trace"):
        for query in ("_=1700000000", "x=1&x=2", "%ff=%ff", "="):
            assert http.get(f"{path}?{query}").json() == http.get(path).json()


@pytest.mark.parametrize("resource", ["trace", "steps/split/trace", "trace/stream"])
def test_a_runs_id_is_taken_in_upper_case(http: httpx2.Client, words: str, resource: str) -> None:
    for form in ("/flow-runs/{}/{}", "/seq/acme/demo/words/runs/{}/{}"):
        answer = http.get(form.format(words.upper(), resource))
        assert (answer.status_code, answer.text) == (200, http.get(form.format(words, resource)).text)


@pytest.mark.parametrize("resource", ["trace", "steps/a/trace", "trace/stream"])
@pytest.mark.parametrize("run", ["nonsense", "%00", "é"])
def test_the_trace_of_an_unknown_run_is_not_found(
    http: httpx2.Client, words: str, resource: str, run: str
) -> None:
    bases = [f"/flow-runs/{run}", f"/seq/acme/demo/words/runs/{run}", f"/seq/acme/demo/grid/runs/{words}"]
    for base in bases:
        assert refusal(http.get(f"{base}/{resource}")) == (404, "RUN_NOT_FOUND")


def test_a_page_has_20_runs_unless_asked_otherwise(http: httpx2.Client) -> None:
    for number in range(21):
        execute(http, "anything", parameters={"n": number})
    assert len(http.get("/flow-runs").json()["runs"]) == 20
    assert len(http.get("/flow-runs?limit=21").json()["runs"]) == 21

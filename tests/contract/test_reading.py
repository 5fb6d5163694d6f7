"""Traces, single steps and the list of runs, in both path forms."""

from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.wire import ANYTHING, BROKEN, cancel, detail, execute, http_for, refusal, start

RUN_FIELDS = {
    "flowId",
    "id",
    "startedAt",
    "status",
    "stepCount",
    "triggerType",
    "flowSlug",
    "version",
    "totals",
}
ENDED_RUN_FIELDS = RUN_FIELDS | {"completedAt", "durationMs", "startedBy"}
OPTIONAL_RUN_FIELDS = {"error", "overridden", "blockOverrides", "expectedSteps", "loops", "inputPreview"}
CONTENT_FIELDS = {"input", "inputPreview", "result", "resultPreview"}
STEP_FIELDS = {"attempt", "startedAt", "status", "stepId", "truncated", "inputSizeBytes"}
OPTIONAL_STEP_FIELDS = {
    "completedAt",
    "costUsd",
    "durationMs",
    "errorContext",
    "inputContext",
    "loopIndex",
    "loopPath",
    "modelUsed",
    "outputContext",
    "outputSizeBytes",
    "tokens",
    "finishReason",
    "modelCalls",
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


def test_the_summary_of_a_run_is_that_of_its_trace(http: httpx2.Client, base: str) -> None:
    answer = http.get(base)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == http.get(f"{base}/trace").json()["flowRun"]


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
        (
            "attempt=all",
            [((0, 0), 1), ((0, 1), 1), ((1, 0), 1), ((1, 1), 1), ((1, 1), 2), ((1, 2), 1)],
        ),
    ],
)
def test_attempt_and_loop_index_select_the_attempt(
    http: httpx2.Client, cells: str, query: str, expected: Any
) -> None:
    assert attempt(http, cells, query) == expected


def test_a_position_of_the_outline_finds_the_same_attempt(http: httpx2.Client, cells: str) -> None:
    """And only with the step and the iteration that are there."""
    outline = http.get(cells.replace("steps/cell/trace", "trace/outline")).json()
    columns, found = outline["columns"], []
    for row, number in enumerate(columns["attempt"]):
        position = columns["position"][row]
        assert (position > 0) == (number > 0)
        if number:
            found.append(attempt(http, cells, f"position={position}&attempt={number}"))
    assert [iteration for iteration, _ in found] == [(0, 0), (0, 1), (1, 0), *[(1, 1)] * 3, (1, 2)]
    assert [number for _, number in found] == [1, 1, 1, 2, 1, 2, 1]
    at = next(
        position
        for position, tried in zip(columns["position"], columns["attempts"], strict=True)
        if tried == 2
    )
    assert attempt(http, cells, f"position={at}") == ((1, 1), 2)
    assert attempt(http, cells, f"position={at}&loop_index=1&attempt=all") == [((1, 1), 1), ((1, 1), 2)]
    for path in (
        f"{cells}?position={at}&attempt=3",
        f"{cells}?position={at}&loop_index=0,1",
        f"{cells}?position=1000",
        f"{cells.replace('cell', 'rows')}?position={at}",
    ):
        answer = http.get(path)
        assert refusal(answer) == (404, "STEP_NOT_FOUND"), path
    assert "has no attempt 3 at position" in detail(http.get(f"{cells}?position={at}&attempt=3"))["message"]


def test_all_attempts_come_with_the_step_id(http: httpx2.Client, base: str) -> None:
    body = http.get(f"{base}/steps/shout/trace?attempt=all").json()
    assert list(body) == ["stepId", "attempts"]
    assert body["stepId"] == "shout"
    assert [(s.get("loopIndex"), s["attempt"], s["status"]) for s in body["attempts"]] == [
        (0, 1, "completed"),
        (1, 1, "failed"),
        (1, 2, "completed"),
    ]
    failed = body["attempts"][1]
    assert failed["errorContext"]["code"] == "CODE_ERROR"
    assert failed["inputContext"] == {"text": "b"}


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


@pytest.mark.parametrize(
    "query",
    [
        "attempt=0",
        "attempt=-1",
        "attempt=1.5",
        "attempt=newest",
        "attempt=",
        "attempt=99999999999999999999",
        "loop_index=x",
        "loop_index=-1",
        "loop_index=1,",
        "loop_index=",
        "loop_index=1,,2",
        "attempt=1&attempt=2",
        "loopindex=1",
        "LoopIndex=1",
        "attempts=1",
        "attempt=%ff",
        "position=0",
        "position=x",
    ],
)
def test_a_bad_query_value_is_refused_by_name(http: httpx2.Client, base: str, query: str) -> None:
    answer = http.get(f"{base}/steps/shout/trace?{query}")
    assert refusal(answer) == (422, "INVALID_REQUEST")
    assert f"`{query.split('=')[0]}`" in detail(answer)["message"]


def test_both_spellings_of_a_query_parameter_are_taken(http: httpx2.Client, base: str) -> None:
    path = f"{base}/steps/shout/trace?attempt=1"
    assert http.get(f"{path}&loopIndex=0").json() == http.get(f"{path}&loop_index=0").json()
    assert http.get(f"{path}&loopIndex=0").json()["loopIndex"] == 0
    for wrong in ("loopIndex=x", "loopIndex=0&loop_index=0"):
        answer = http.get(f"{path}&{wrong}")
        assert refusal(answer) == (422, "INVALID_REQUEST")
        assert "`loop_index`" in detail(answer)["message"]


@pytest.mark.parametrize(
    "query", ["_=1700000000", "limit=1", "x=1&x=2", "%ff=%ff", "=", "\u00e9", "utm_source=a"]
)
def test_an_unknown_query_parameter_is_ignored(http: httpx2.Client, base: str, query: str) -> None:
    for path in (f"{base}/trace", f"{base}/steps/split/trace"):
        assert http.get(f"{path}?{query}").json() == http.get(path).json()


def test_a_slip_in_a_query_parameter_comes_with_a_suggestion(http: httpx2.Client) -> None:
    message = detail(http.get("/flow-runs?limit=1&flow_di=x"))["message"]
    assert message == "`flow_di`: unknown parameter; did you mean 'flow_id'?"


@pytest.mark.parametrize("resource", ["trace", "steps/split/trace", "trace/stream"])
def test_a_runs_id_is_taken_in_upper_case(http: httpx2.Client, words: str, resource: str) -> None:
    for form in ("/flow-runs/{}/{}", "/seq/acme/demo/words/runs/{}/{}"):
        answer = http.get(form.format(words.upper(), resource))
        assert (answer.status_code, answer.text) == (200, http.get(form.format(words, resource)).text)


@pytest.mark.parametrize("query", ["attempt=latest%0A", "attempt=1%0A", "loop_index=1%0A"])
def test_a_stray_line_end_does_no_harm(http: httpx2.Client, base: str, query: str) -> None:
    assert http.get(f"{base}/steps/shout/trace?{query}").status_code == 200


@pytest.mark.parametrize("resource", ["trace", "steps/a/trace", "trace/stream"])
@pytest.mark.parametrize("run", ["01900000-0000-7000-8000-000000000000", "nonsense", "%00", "é"])
def test_the_trace_of_an_unknown_run_is_not_found(http: httpx2.Client, resource: str, run: str) -> None:
    for base in (f"/flow-runs/{run}", f"/seq/acme/demo/words/runs/{run}"):
        assert refusal(http.get(f"{base}/{resource}")) == (404, "RUN_NOT_FOUND")
    answer = http.get(f"/seq/acme/demo/none/runs/{run}/{resource}")
    assert refusal(answer) == (404, "FLOW_NOT_FOUND")


def test_a_run_is_not_found_below_another_flow(http: httpx2.Client, words: str) -> None:
    answer = http.get(f"/seq/acme/demo/grid/runs/{words}/trace")
    assert refusal(answer) == (404, "RUN_NOT_FOUND")


def test_the_trace_of_an_active_run_has_its_steps_so_far(server: RunningServer, http: httpx2.Client) -> None:
    run = start(server, "endless")
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
        seen = ""
        for chunk in stream.iter_text():
            seen += chunk
            if '"stepId":"hold"' in seen:
                break
        trace = http.get(f"/flow-runs/{run}/trace").json()
    cancel(server, run)
    assert trace["flowRun"]["status"] == "running"
    assert "completedAt" not in trace["flowRun"]
    assert [(s["stepId"], s["status"]) for s in trace["steps"]] == [
        ("first", "completed"),
        ("hold", "running"),
    ]


def test_runs_are_listed_newest_first_and_paged() -> None:
    with running_server() as server, http_for(server, server.key) as http:
        flow = server.push(ANYTHING)
        other = server.push(BROKEN)
        ids = [execute(http, "anything", parameters={"n": n}) for n in range(5)]
        failed = detail(http.post("/seq/acme/demo/broken/execute", json={}))["executionId"]
        newest_first = [failed, *reversed(ids)]

        def page(**query: Any) -> dict[str, Any]:
            answer = http.get("/flow-runs", params=query)
            assert answer.status_code == 200, answer.text
            body: dict[str, Any] = answer.json()
            assert list(body) == ["runs", "nextCursor", "lastChange"]
            assert all(
                ENDED_RUN_FIELDS <= set(run) <= ENDED_RUN_FIELDS | OPTIONAL_RUN_FIELDS for run in body["runs"]
            )
            return body

        def listed(**query: Any) -> list[str]:
            return [run["id"] for run in page(**query)["runs"]]

        assert listed() == newest_first
        assert page()["nextCursor"] is None
        assert page(limit=6)["nextCursor"] is None
        assert listed(flow_id=flow.id) == newest_first[1:]
        assert listed(flow_id=other.id, status="failed") == [failed]
        assert listed(status="failed") == [failed]
        assert listed(status="running") == []
        assert listed(flowId=other.id) == [failed]
        assert listed(flow_id="unknown") == []
        for limit in (1, 2, 4, 5):
            found: list[str] = []
            cursor = None
            while True:
                body = page(limit=limit) if cursor is None else page(limit=limit, cursor=cursor)
                assert len(body["runs"]) <= limit
                found += [run["id"] for run in body["runs"]]
                cursor = body["nextCursor"]
                if cursor is None:
                    break
            assert found == newest_first


def test_a_page_has_20_runs_unless_asked_otherwise() -> None:
    with running_server() as server, http_for(server, server.key) as http:
        server.push(ANYTHING)
        for number in range(21):
            execute(http, "anything", parameters={"n": number})
        assert len(http.get("/flow-runs").json()["runs"]) == 20
        assert len(http.get("/flow-runs?limit=100").json()["runs"]) == 21


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=ten",
        "limit=",
        "limit=1.5",
        "limit=5&limit=6",
        "status=done",
        "status=",
        "cursor=",
        "cursor=x",
        "cursor=AAAA",
        "cursor=%C3%A9",
        "cursor=AZogFR2WdbYhdO00g==extra",
        "limits=3",
        "FlowID=x",
    ],
)
def test_a_bad_list_query_is_refused_by_name(http: httpx2.Client, query: str) -> None:
    answer = http.get(f"/flow-runs?{query}")
    assert refusal(answer) == (422, "INVALID_REQUEST")
    assert f"`{query.split('=')[0]}`" in detail(answer)["message"]

"""`POST …/jobs` and `GET …/jobs/{executionId}`."""

from decimal import Decimal
from typing import Any

import httpx2
import msgspec
import pytest
from uuid_utils import uuid7

from runglass.store.records import Append
from runglass.testing import RunningServer
from runglass.wire.run_api import JobRequest
from tests.contract.wire import ANYTHING, UUID, execute, frames, http_for, refusal
from tests.records import new_run

JOBS = "/seq/acme/demo/anything/jobs"


def queue(http: httpx2.Client, slug: str, **body: Any) -> str:
    answer = http.post(f"/seq/acme/demo/{slug}/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["executionId"])


def ended(http: httpx2.Client, run: str, slug: str) -> dict[str, Any]:
    """The state of the job once its stream has come to the end."""
    http.get(f"/flow-runs/{run}/trace/stream")
    state: dict[str, Any] = http.get(f"/seq/acme/demo/{slug}/jobs/{run}").json()
    return state


def row(server: RunningServer, status: str, *, trigger_type: str = "job") -> str:
    """A run of `anything` that nobody executes, with this status."""

    async def make() -> str:
        store = server.runtime.store
        project = await store.ensure_project("acme", "demo")
        flow = await store.find_flow(project.id, "anything")
        assert flow is not None
        new = new_run(project.id, flow.id, id=str(uuid7()), version=1, trigger_type=trigger_type)
        run = await store.create_run(new)
        if status != "pending":
            event = b'{"eventType":"step_paused"}'
            await store.append(
                Append(run_no=run.no, head=0, fence=run.fence, events=[event], status=status, summary=b"{}")
            )
        return run.id

    return server.call(make())


def test_a_job_is_accepted_before_it_has_run(http: httpx2.Client) -> None:
    answer = http.post("/seq/acme/demo/endless/jobs", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    body = answer.json()
    assert sorted(body) == ["blockCount", "executionId", "flowId", "status"]
    assert (body["status"], body["blockCount"]) == ("pending", 2)
    run = body["executionId"]
    assert UUID.fullmatch(run)
    state = http.get(f"/seq/acme/demo/endless/jobs/{run}").json()
    assert state == {"executionId": run, "status": state["status"]}
    assert state["status"] in ("pending", "running")
    summary = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
    assert (summary["triggerType"], summary["flowId"]) == ("job", body["flowId"])
    http.delete(f"/flow-runs/{run}")


def test_a_completed_job_has_its_whole_result_whatever_the_capture_mode(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push("slug: quiet\ncapture: 'off'\nsteps: [{id: a, type: passthrough}]\n")
    given = {"deep": [1, None, "é"], "large": 10**30}
    run = queue(http, "quiet", message="hello", parameters=given)
    assert ended(http, run, "quiet") == {
        "executionId": run,
        "status": "completed",
        "result": {**given, "message": "hello"},
    }


def test_a_failed_job_says_what_failed_and_where(http: httpx2.Client) -> None:
    run = queue(http, "broken")
    state = ended(http, run, "broken")
    assert sorted(state) == ["error", "executionId", "status"]
    assert state["status"] == "failed"
    assert state["error"].startswith("step 'bad' failed: ")
    assert "it broke" in state["error"]
    assert state["error"].endswith("(CODE_ERROR)")


def test_a_cancelled_job_reads_failed_with_the_error_cancelled(http: httpx2.Client) -> None:
    run = queue(http, "endless")
    assert http.delete(f"/flow-runs/{run}").status_code == 202
    state = ended(http, run, "endless")
    assert state == {"executionId": run, "status": "failed", "error": "cancelled"}


@pytest.mark.parametrize(
    ("status", "read"), [("pending", "pending"), ("running", "running"), ("paused", "running")]
)
def test_a_job_that_has_not_ended_reads_pending_or_running(
    server: RunningServer, http: httpx2.Client, status: str, read: str
) -> None:
    run = row(server, status)
    state = http.get(f"{JOBS}/{run}").json()
    assert state == {"executionId": run, "status": read}


def test_a_version_is_pinned_and_polled_below_either_path(server: RunningServer, http: httpx2.Client) -> None:
    def flow(text: str) -> str:
        return f"slug: pinned\nsteps: [{{id: a, type: passthrough, input: {{text: {text}}}}}]\n"

    server.push(flow("first"))
    server.push(flow("second"))
    server.push(flow("draft"), publish=False)
    for version, number in (("", 2), ("/v1", 1), ("/v2", 2), ("/v0", 0)):
        run = http.post(f"/seq/acme/demo/pinned{version}/jobs", json={}).json()["executionId"]
        first = frames(http.get(f"/flow-runs/{run}/trace/stream").text)[0]
        assert first.data["version"] == number
        assert http.get(f"/seq/acme/demo/pinned/jobs/{run}").json()["status"] == "completed"
        assert http.get(f"/seq/acme/demo/pinned/v{number}/jobs/{run}").json()["status"] == "completed"
        other = http.get(f"/seq/acme/demo/pinned/v{number + 1}/jobs/{run}")
        assert refusal(other) == (404, "RUN_NOT_FOUND")
        assert refusal(http.get(f"/seq/acme/demo/pinned/latest/jobs/{run}")) == (400, "INVALID_VERSION")


def test_only_a_job_of_this_flow_and_project_is_found(server: RunningServer, http: httpx2.Client) -> None:
    run = queue(http, "anything")
    server.push(ANYTHING, org="acme", project="elsewhere")
    with http_for(server, server.make_key("acme", "elsewhere")) as other:
        assert refusal(other.get(f"/seq/acme/elsewhere/anything/jobs/{run}")) == (404, "RUN_NOT_FOUND")
        assert refusal(other.get(f"{JOBS}/{run}")) == (404, "FLOW_NOT_FOUND")
    for path, code in [
        (f"/seq/acme/demo/words/jobs/{run}", "RUN_NOT_FOUND"),
        (f"/seq/acme/demo/none/jobs/{run}", "FLOW_NOT_FOUND"),
        (f"{JOBS}/01900000-0000-7000-8000-000000000000", "RUN_NOT_FOUND"),
        (f"{JOBS}/nonsense", "RUN_NOT_FOUND"),
        # The result of a run that is no job is its own caller's alone.
        (f"{JOBS}/{execute(http, 'anything')}", "RUN_NOT_FOUND"),
    ]:
        assert refusal(http.get(path)) == (404, code)


@pytest.mark.parametrize(
    "fields", [{"tools": [{"type": "function"}]}, {"toolChoice": "auto"}, {"tool_choice": {}}]
)
def test_a_job_takes_no_tools(http: httpx2.Client, fields: dict[str, Any]) -> None:
    assert refusal(http.post(JOBS, json=fields)) == (400, "TOOLS_REQUIRE_SYNC_EXECUTE")


def test_an_empty_list_of_tools_is_accepted(http: httpx2.Client) -> None:
    assert http.post(JOBS, json={"tools": [], "toolChoice": None}).status_code == 202


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"mesage": "a"}, 422, "INVALID_REQUEST"),
        ({"message": 3}, 422, "INVALID_REQUEST"),
        ({"executionId": "x"}, 422, "INVALID_REQUEST"),
        ({"toolCallMessages": [{}]}, 422, "INVALID_REQUEST"),
        ({"run_remaining": True}, 422, "INVALID_REQUEST"),
        ({"blockOverrides": {}, "block_overrides": {}}, 422, "INVALID_REQUEST"),
        ({"blockOverrides": {"none": {}}}, 422, "INVALID_REQUEST"),
        ({"parameters": {"attachments": []}}, 400, "PARAMETER_NAME_RESERVED"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "MESSAGES_ROLE_INVALID"),
        ({"messages": [{"role": "user", "content": "x" * 1_000_000}]}, 413, "MESSAGES_TOO_LARGE"),
        ({"messages": [{"role": "user", "content": "x"}], "message": "x"}, 422, "INVALID_REQUEST"),
        ({"attachments": [{"url": "http://a/b", "mimeType": "image/png"}]}, 400, "INVALID_ATTACHMENT"),
        ({"attachments": [{"url": "https://a/b", "mime_type": "text/plain"}]}, 400, "INVALID_ATTACHMENT"),
        ({"attachments": [{"mime_type": "image/png"}]}, 400, "INVALID_ATTACHMENT"),
    ],
)
def test_a_wrong_body_starts_nothing(
    http: httpx2.Client, body: dict[str, Any], status: int, code: str
) -> None:
    def newest() -> list[str]:
        """Its id alone: it may be the job of another test, which still goes on."""
        return [run["id"] for run in http.get("/flow-runs?limit=1").json()["runs"]]

    before = newest()
    assert refusal(http.post(JOBS, json=body)) == (status, code)
    assert newest() == before


def test_unknown_fields_and_fields_without_effect_are_ignored(http: httpx2.Client) -> None:
    own = {"userId": 7, "status": "tool_calls_required", "blockCount": 3}
    paused = {"pausedAtStep": "a", "iterationsUsed": 1, "accumulatedOutputs": {"keep": {"n": 9}}}
    run = queue(http, "anything", message="hi", **own, **paused, executionId="", stepIndex=0)
    assert ended(http, run, "anything")["result"] == {"message": "hi"}


def test_a_jobs_id_is_taken_in_upper_case(http: httpx2.Client) -> None:
    run = queue(http, "anything")
    assert http.get(f"{JOBS}/{run.upper()}").json()["executionId"] == run


def test_the_last_of_the_messages_is_the_message(http: httpx2.Client) -> None:
    run = queue(http, "anything", messages=[{"role": "user", "content": "hi"}])
    assert ended(http, run, "anything")["status"] == "completed"
    step = http.get(f"/flow-runs/{run}/steps/keep/trace").json()
    assert step["outputContext"] == {"message": "hi"}


def test_earlier_turns_go_ahead_of_the_first_prompt(server: RunningServer, http: httpx2.Client) -> None:
    server.push("slug: chat\nsteps: [{id: say, type: llm, model: echo}]\n")
    earlier = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]
    prompts = []
    for history in ([], earlier):
        run = queue(http, "chat", messages=[*history, {"role": "user", "content": "now"}])
        assert ended(http, run, "chat")["result"] == {"text": "now"}
        tokens = http.get(f"/flow-runs/{run}/steps/say/trace").json()["tokens"]
        prompts.append(tokens["prompt"])
    assert prompts[1] > prompts[0]


def test_attachments_are_taken_in_both_spellings(http: httpx2.Client) -> None:
    for name in ("mimeType", "mime_type"):
        run = queue(http, "anything", attachments=[{"url": "https://a.b/c", name: "image/png"}])
        assert ended(http, run, "anything")["status"] == "completed"


def test_a_reading_key_may_poll_jobs_but_not_queue_them(server: RunningServer, http: httpx2.Client) -> None:
    run = queue(http, "anything")
    with http_for(server, server.make_key("acme", "demo", "read")) as reader:
        assert refusal(reader.post(JOBS, json={})) == (403, "FORBIDDEN")
        assert refusal(reader.post("/seq/acme/demo/none/jobs", json={})) == (404, "FLOW_NOT_FOUND")
        assert reader.get(f"{JOBS}/{run}").status_code == 200


def test_a_project_that_has_spent_its_budget_queues_nothing(server: RunningServer) -> None:
    async def spend() -> None:
        project = await server.runtime.store.ensure_project("acme", "spent")
        await server.runtime.store.set_budget(project.id, Decimal(0))

    server.push(ANYTHING, project="spent")
    server.call(spend())
    with http_for(server, server.make_key("acme", "spent")) as http:
        assert refusal(http.post("/seq/acme/spent/anything/jobs", json={})) == (402, "INSUFFICIENT_CREDITS")
        assert http.get("/flow-runs").json()["runs"] == []


def test_the_documented_body_is_the_one_that_is_read(server: RunningServer, nobody: httpx2.Client) -> None:
    paths = msgspec.json.decode(nobody.get(f"{server.address}/docs/openapi.json").content)["paths"]
    for path in ("/jobs", "/{version}/jobs"):
        operation = paths[f"/api/v1/seq/{{org}}/{{project}}/{{slug}}{path}"]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        known = JobRequest.__struct_encode_fields__
        assert tuple(schema["properties"]) == tuple(name for name in known if not name.startswith("tool"))
        assert list(operation["responses"]) == ["202", "default"]

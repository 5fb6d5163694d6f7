"""A run as a file, all of it or its tree for other programs, and what comes back when it is imported.

Imported, it is the same run on another server, all of it or nothing, and nobody else's.
"""

import gzip
import json
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract import wire
from tests.laws.law import require
from tests.laws.stored import broken_in
from tests.outlines import rows_in
from tests.servers import served, server_with
from tests.waiting import eventually

SIDE_BY_SIDE = """
slug: side-by-side
steps:
  - id: both
    type: parallel
    branches:
      left: [{id: l, type: wait, ms: 30}]
      right: [{id: r, type: wait, ms: 30}]
  - id: each
    type: loop
    over: "[1, 2, 3, 4, 5, 6]"
    max_concurrency: 3
    steps:
      - {id: hold, type: wait, ms: 10}
      - {id: ask, type: llm, model: echo, prompt: "hi {{ item }}"}
"""
FAILING = """
slug: failing
steps:
  - {id: ask, type: llm, model: echo, system: be kind, prompt: "hi {{ message }}"}
  - id: bad
    type: code
    retry: {max_attempts: 2, initial_delay_ms: 0}
    code: raise ValueError("it broke")
"""
KIND_OF_CLIENT, KIND_INTERNAL = 3, 1
SESSION = "01a216ae-0000-730f-a3af-cb1a6577fac3"
IMPORT = "/flow-runs/import"
READS = ("trace", "trace/stream", "trace/outline", "export?format=json", "export?format=jsonl")


@pytest.fixture(scope="module")
def runs(server: RunningServer, http: httpx2.Client) -> dict[str, str]:
    """A run of each flow, of which one failed, and one that was cancelled."""
    for flow in (SIDE_BY_SIDE, FAILING):
        server.push(flow)
    cancelled = wire.start(server, "endless")
    wire.until_event(http, cancelled, "step_completed")
    wire.cancel(server, cancelled)
    assert wire.events_of(http, cancelled)[-1].event == "flow_cancelled"
    body = {"message": "a bb ccc", "parameters": {"rows": [list(range(20)), [30, 31], list(range(10, 40))]}}
    good = {slug: wire.execute(http, slug, **body) for slug in ("words", "grid", "side-by-side")}
    failing = wire.ran(http, "failing", headers={"X-Session-Id": SESSION}, message="you")
    return {**good, "failing": failing, "cancelled": cancelled}


def spans_of(http: httpx2.Client, run_id: str) -> list[dict[str, Any]]:
    (resource,) = http.get(f"/flow-runs/{run_id}/export?format=otlp").json()["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    assert scope["scope"]["name"] == "runglass"
    found: list[dict[str, Any]] = scope["spans"]
    return found


def name_of(row: dict[str, Any], *, attempt: str) -> str:
    if row["kind"] == "iteration":
        return f"{row['name']}[{row['index']}]"
    return attempt.format(**row) if row["kind"] == "attempt" else str(row["name"])


@pytest.mark.parametrize("slug", ["words", "grid", "side-by-side", "failing"])
def test_otlp_has_a_span_for_each_row_below_its_parent(
    http: httpx2.Client, runs: dict[str, str], slug: str
) -> None:
    run_id = runs[slug]
    spans = spans_of(http, run_id)
    root, *others = spans
    by_id = {span["spanId"]: span for span in spans}
    assert "parentSpanId" not in root
    assert root["traceId"] == run_id.replace("-", "")
    assert {span["traceId"] for span in spans} == {root["traceId"]}
    calls = [span for span in others if span["kind"] == KIND_OF_CLIENT]
    steps = http.get(f"/flow-runs/{run_id}/trace").json()["steps"]
    assert len(calls) == sum(len(step.get("modelCalls", [])) for step in steps)
    told = [span for span in others if span["kind"] == KIND_INTERNAL]
    rows = rows_in(http.get(f"/flow-runs/{run_id}/trace/outline").content)
    begun = [row for row in rows if row["start"] >= 0]
    assert [span["name"] for span in told] == [
        name_of(row, attempt="{name} attempt {attempt}") for row in begun
    ]
    for span, row in zip(told, begun, strict=True):
        parent = by_id[span["parentSpanId"]]
        above = name_of(rows[row["parent"]], attempt="{name}") if row["parent"] >= 0 else root["name"]
        assert parent["name"] == above
        begun_ms = (int(span["startTimeUnixNano"]) - int(root["startTimeUnixNano"])) // 1_000_000
        took_ms = (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) // 1_000_000
        assert (begun_ms, begun_ms + took_ms) == (row["start"], row["end"])
        is_bad = row["status"] == "failed" or (row["kind"] == "attempt" and row["status"] == "retried")
        assert ("status" in span) == is_bad


def test_what_failed_says_so_with_its_error(http: httpx2.Client, runs: dict[str, str]) -> None:
    spans = spans_of(http, runs["failing"])
    bad = [span for span in spans if "status" in span]
    names = ["invoke_workflow failing", "bad", "bad attempt 1", "bad attempt 2"]
    assert [span["name"] for span in bad] == names
    assert {span["status"]["code"] for span in bad} == {2}
    assert all("it broke" in span["status"]["message"] for span in bad if span["name"] != "bad")
    assert {"key": "error.type", "value": {"stringValue": "CODE_ERROR"}} in bad[-1]["attributes"]


def test_lines_are_a_header_and_then_each_event_byte_for_byte_and_a_document_has_the_trace_as_well(
    http: httpx2.Client, runs: dict[str, str]
) -> None:
    words = runs["words"]
    answer = http.get(f"/flow-runs/{words}/export?format=jsonl")
    assert answer.headers["content-type"] == "application/jsonl"
    assert answer.headers["content-disposition"] == f'attachment; filename="words-{words}.jsonl"'
    header, *lines = answer.text.splitlines()
    flow = http.get("/flows/acme/demo/words").json()
    source = http.get("/flows/acme/demo/words/versions/1").json()
    described = {
        "format": "runglass-run",
        "formatVersion": 1,
        "runId": words,
        "version": 1,
        "capture": "full",
        "triggerType": "api",
        "flow": {"id": flow["id"], "slug": "words", "source": source},
    }
    assert json.loads(header) == described
    stream = http.get(f"/flow-runs/{words}/trace/stream").text
    assert lines == [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    answer = http.get(f"/flow-runs/{words}/export")
    assert answer.headers["content-type"] == "application/json"
    trace = http.get(f"/flow-runs/{words}/trace").json()
    assert answer.json() == {**described, "trace": trace, "events": [json.loads(line) for line in lines]}


def test_of_a_run_that_goes_on_it_is_the_part_up_to_now(server: RunningServer, http: httpx2.Client) -> None:
    """As spans it is what has ended."""
    run_id = wire.start(server, "endless")
    wire.until_event(http, run_id, "step_started", nth=2)
    document, perfetto = (
        http.get(f"/flow-runs/{run_id}/export?format={f}").json() for f in ("json", "perfetto")
    )
    spans = spans_of(http, run_id)
    wire.cancel(server, run_id)
    assert [event["seq"] for event in document["events"]] == list(range(1, len(document["events"]) + 1))
    assert document["trace"]["flowRun"]["status"] == "running"
    stream = wire.events_of(http, run_id)
    assert [frame.data for frame in stream[: len(document["events"])]] == document["events"]
    assert [span["name"] for span in spans] == ["first"]
    begun = [event["name"] for event in perfetto["traceEvents"] if event["ph"] == "B"]
    assert begun == ["endless", "first", "hold"]
    assert len([event for event in perfetto["traceEvents"] if event["ph"] == "E"]) == 1


@pytest.mark.parametrize("format", ["json", "jsonl", "otlp", "perfetto"])
def test_a_run_without_snapshots_is_exported_without_them(
    server: RunningServer, http: httpx2.Client, format: str
) -> None:
    secret = "only-in-the-answer"
    server.push(
        "slug: quiet\ncapture: metadata_only\n"
        "steps: [{id: keep, type: passthrough}, {id: ask, type: llm, model: echo, prompt: '{{ message }}'}]\n"
    )
    run_id = wire.execute(http, "quiet", message=secret)
    text = http.get(f"/flow-runs/{run_id}/export", params={"format": format}).text
    assert "echo" in text
    assert secret not in text


target = server_with(scope="function", import_limit_bytes=2_000_000)


# A server that never keeps a run.
empty = server_with(import_limit_bytes=2_000_000)


@pytest.fixture
def here(target: RunningServer) -> Iterator[httpx2.Client]:
    with wire.http_for(target, target.key) as client:
        yield client


@pytest.fixture(scope="module")
def file(http: httpx2.Client, runs: dict[str, str]) -> bytes:
    return http.get(f"/flow-runs/{runs['words']}/export?format=jsonl").content


def nothing_is_kept(target: RunningServer, here: httpx2.Client) -> bool:
    """Whether no run, no flow and no row of one is there."""
    assert here.get("/flow-runs").json()["runs"] == []
    assert here.get("/flows").json()["flows"] == []

    target.call(target.runtime.removal.tidy())
    with closing(sqlite3.connect(target.runtime.settings.database)) as database:
        tables = ("run", "event", "step", "step_attempt", "importing_run", "purged_run", "flow_version")
        return not any(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)


@pytest.mark.parametrize("format", ["json", "jsonl"])
@pytest.mark.parametrize("kind", ["words", "grid", "failing", "cancelled"])
def test_a_run_comes_back_byte_for_byte(
    http: httpx2.Client,
    target: RunningServer,
    here: httpx2.Client,
    runs: dict[str, str],
    kind: str,
    format: str,
) -> None:
    run_id = runs[kind]
    file = http.get(f"/flow-runs/{run_id}/export", params={"format": format}).content
    answer = here.post(IMPORT, content=file)
    assert answer.status_code == 201, answer.text
    assert answer.json() == wire.as_listed(http.get(f"/flow-runs/{run_id}").json())
    steps = {step["stepId"] for step in wire.trace_of(http, run_id)["steps"]}
    for read in (*READS, *(f"steps/{step}/trace?attempt=all" for step in steps)):
        path = f"/flow-runs/{run_id}/{read}"
        assert here.get(path).content == http.get(path).content
    assert [run["id"] for run in here.get("/flow-runs").json()["runs"]] == [run_id]
    of_session = here.get("/flow-runs", params={"q": f"session:{SESSION}"}).json()["runs"]
    assert [run["id"] for run in of_session] == [run_id] * (kind == "failing")
    require(target.call(broken_in(target.runtime.store, "acme", "demo")))


def test_into_another_project_it_comes_once_it_is_gone_from_the_first(
    target: RunningServer, here: httpx2.Client, file: bytes, runs: dict[str, str]
) -> None:
    with wire.http_for(target, target.make_key("acme", "other")) as other:
        assert here.post(IMPORT, content=file).status_code == 201
        assert wire.refusal(other.post(IMPORT, content=file)) == (409, "RUN_EXISTS")
        assert other.get(f"/flow-runs/{runs['words']}").status_code == 404
        assert here.delete(f"/flow-runs/{runs['words']}?purge=true").status_code == 202
        # The flow stays where it is.
        assert wire.refusal(other.post(IMPORT, content=file)) == (409, "FLOW_CONFLICT")
        assert here.post(IMPORT, content=file).status_code == 201
        assert other.get("/flows").json()["flows"] == []


@pytest.mark.parametrize(
    ("member", "value", "told"),
    [
        ("inputs", [1], (422, "INVALID_REQUEST")),
        ("messages", [1], (422, "INVALID_REQUEST")),
        ("messages", [{"role": "system", "content": "obey"}], (400, "MESSAGES_ROLE_INVALID")),
        (
            "messages",
            [{"role": "user", "content": "", "attachments": [{"url": "http://a", "mimeType": "image/png"}]}],
            (400, "INVALID_ATTACHMENT"),
        ),
        ("attachments", [{"url": "http://a", "mimeType": "image/png"}], (400, "INVALID_ATTACHMENT")),
    ],
)
def test_it_is_not_run_again_with_an_input_that_no_call_may_have(
    here: httpx2.Client, file: bytes, member: str, value: Any, told: tuple[int, str]
) -> None:
    header, started, given, *more = file.decode().splitlines()
    given = json.dumps(json.loads(given) | {member: value}, separators=(",", ":"))
    run = here.post(IMPORT, content="\n".join([header, started, given, *more, ""]).encode()).json()["id"]
    assert wire.refusal(here.post(f"/flow-runs/{run}/rerun")) == told


def without_line(file: bytes, number: int) -> bytes:
    lines = file.splitlines(keepends=True)
    return b"".join(lines[:number] + lines[number + 1 :])


def with_other_flow(file: bytes, **fields: Any) -> bytes:
    header, _, rest = file.partition(b"\n")
    changed = json.loads(header)
    changed["flow"]["source"] |= fields
    return json.dumps(changed).encode() + b"\n" + rest


NO_RUNS: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda file: b"", "the file is empty"),
    (lambda file: b"{", "is truncated"),
    (lambda file: file[: len(file) // 2].rpartition(b"\n")[0], "has not ended"),
    (lambda file: file[:-10], "cannot be used: "),
    (lambda file: without_line(file, 0), "does not begin with the header"),
    (lambda file: without_line(file, 5), "its seq is 6"),
    (lambda file: file + file.splitlines()[-1], "has ended with the event before it"),
    (lambda file: file.replace(b'"stepId":"split"', b'"stepId":"\xff"'), "cannot be used"),
    (lambda file: gzip.compress(file), "compressed"),
    (lambda file: with_other_flow(file, slug="another"), "has the slug 'another'"),
    (lambda file: with_other_flow(file, steps=[]), "`flow.source` cannot be used"),
    (lambda file: with_other_flow(file, steps=5), "`flow.source` is no flow"),
]


@pytest.mark.parametrize(("change", "told"), NO_RUNS)
def test_a_file_that_is_no_run_is_refused_and_nothing_is_kept(
    empty: RunningServer, file: bytes, change: Callable[[bytes], bytes], told: str
) -> None:
    with wire.http_for(empty, empty.key) as here:
        assert wire.refusal(here.post(IMPORT, content=change(file)), told) == (422, "INVALID_REQUEST")
        assert nothing_is_kept(empty, here)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_over_the_limit_is_refused(empty: RunningServer, file: bytes, chunked: bool) -> None:
    header, _, rest = file.partition(b"\n")
    large = header + b"\n" + rest.splitlines(keepends=True)[0] + b" " * 3_000_000
    with wire.http_for(empty, empty.key) as here:
        answer = here.post(IMPORT, content=iter([large]) if chunked else large)
        assert wire.refusal(answer, "import_limit_bytes") == (413, "REQUEST_TOO_LARGE")
        assert nothing_is_kept(empty, here)


def test_a_project_without_room_takes_none(file: bytes) -> None:
    with served(project_data_bytes=1024) as (target, here):
        assert wire.refusal(here.post(IMPORT, content=file), "project_data_bytes") == (503, "UNAVAILABLE")
        assert nothing_is_kept(target, here)


@contextmanager
def sending(target: RunningServer, file: bytes) -> Iterator[socket.socket]:
    """A connection on which all of the file but its last five bytes has been sent."""
    head = wire.head_of(target, "POST", f"/api/v1{IMPORT}", f"Content-Length: {len(file)}")
    with wire.raw_connection(target, head + file[:-5]) as connection:
        yield connection


def until_importing(target: RunningServer, here: httpx2.Client) -> None:
    # Else the import by which this asks might be the first.
    eventually(lambda: wire.requests_in(target) == 1)
    eventually(lambda: here.post(IMPORT, content=b"").status_code == 429)


def test_a_caller_who_leaves_in_the_middle_leaves_nothing_behind_and_a_second_import_is_told_to_wait(
    target: RunningServer, here: httpx2.Client, file: bytes, runs: dict[str, str]
) -> None:
    with sending(target, file):
        until_importing(target, here)
    eventually(lambda: here.post(IMPORT, content=b"").status_code == 422)
    assert nothing_is_kept(target, here)
    with sending(target, file) as connection:
        until_importing(target, here)
        answer = here.post(IMPORT, content=file)
        assert wire.refusal(answer) == (429, "RATE_LIMITED")
        assert answer.headers["retry-after"] == "1"
        connection.sendall(file[-5:])
        eventually(lambda: here.post(IMPORT, content=b"").status_code == 422)
    assert here.get(f"/flow-runs/{runs['words']}").status_code == 200


def test_a_caller_of_whom_nothing_comes_any_more_is_dropped(file: bytes) -> None:
    # By its bytes the body may take hours; those that come in one part with the head do not count.
    with served(body_time_limit_s=0.3, min_body_bytes_per_s=1) as (target, here):
        with sending(target, file + b"\n" * 200_000) as connection:
            answer = connection.recv(100_000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body_time_limit_s=0.3" in answer
        assert nothing_is_kept(target, here)


def test_a_key_that_is_revoked_meanwhile_imports_nothing(
    target: RunningServer, here: httpx2.Client, file: bytes
) -> None:
    with wire.http_for(target, target.make_key("acme", "demo")) as another:
        with sending(target, file) as connection:
            until_importing(target, here)
            (own, _) = another.get("/keys").json()["keys"]
            assert another.delete(f"/keys/{own['id']}").status_code == 200
            answer = connection.recv(100_000)
            assert answer.startswith(b"HTTP/1.1 401")
            assert b"nothing was imported" in answer
        assert nothing_is_kept(target, another)


def test_an_imported_version_is_told_and_does_not_run(here: httpx2.Client, file: bytes) -> None:
    run_id = here.post(IMPORT, content=file).json()["id"]
    calls = [
        here.post(f"/seq/acme/demo/words/{call}", json={"message": "a"})
        for call in ("v1/execute", "v1/jobs", "v1/step", "execute?version=1")
    ]
    calls.append(here.post(f"/flow-runs/{run_id}/rerun", json={}))
    calls.append(here.put("/flows/acme/demo/words/production", json={"version": 1}))
    for answer in calls:
        assert wire.refusal(answer, "came with an imported run") == (404, "VERSION_NOT_FOUND"), answer.url
    assert len(here.get("/flow-runs").json()["runs"]) == 1
    versions = here.get("/flows/acme/demo/words").json()["versions"]
    assert [(each["version"], each.get("imported")) for each in versions] == [(0, None), (1, True)]
    sources = [here.get(f"/flows/acme/demo/words/versions/{number}") for number in (0, 1)]
    assert [answer.headers.get("X-Version-Imported") for answer in sources] == [None, "true"]
    assert here.post("/flows/acme/demo/words/publish").json() == {"version": 2}
    assert wire.execute(here, "words", message="a")

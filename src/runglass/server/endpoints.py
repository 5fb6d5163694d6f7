"""The table of all endpoints.

Routes, access, the checks of parameters, the OpenAPI document and the tests of roles come from it. An
endpoint that is not here does not exist. Hot ones stand first, as the router tries one path after the other.

More than 300 lines: one table.
"""

from functools import partial
from typing import Any

from runglass.diff.run_diff import AttemptsDiff, RunDiff
from runglass.log.trace import RunSummary, StepAttempts, StepTrace, Trace
from runglass.outlines.outline import OutlinePage
from runglass.outlines.timeline import Timeline
from runglass.runtime.health import Health, Readiness
from runglass.server.endpoint import Answer, Endpoint, Lookup
from runglass.server.requests import pagination, parameters
from runglass.server.requests import schemas as bodies
from runglass.server.routes import (
    cancel,
    diff,
    execute,
    export,
    flows,
    jobs,
    keys,
    otlp,
    outline,
    payload,
    rerun,
    run_lists,
    runs,
    sessions,
    steps,
    viewer,
)
from runglass.server.routes.cancel import CancelResult
from runglass.server.security.authentication import (
    require_flow,
    require_project,
    run_by_id,
    run_of_flow,
    runs_by_id,
    trace_by_id,
    trace_of_flow,
)
from runglass.wire.admin_api import (
    AuditPage,
    FlowHistory,
    FlowInfo,
    FlowList,
    FlowTree,
    FlowVersionNumber,
    KeyInfo,
    KeyList,
    NewKeyInfo,
    PushedFlow,
    ViewerIdentity,
    ViewerTicket,
)
from runglass.wire.run_api import (
    CompletedResult,
    JobAccepted,
    JobPage,
    JobState,
    RunHistogram,
    RunPage,
    ToolCallsRequired,
)
from runglass.wire.session import SessionPage

API = "/api/v1"
FLOW = f"{API}/seq/{{org:organisation}}/{{project}}/{{slug}}"
VERSION = f"{FLOW}/{{version}}"
MANAGED = f"{API}/flows/{{org}}/{{project}}"
RUN = f"{API}/flow-runs/{{execution_id}}"
RUN_OF_FLOW = f"{FLOW}/runs/{{execution_id}}"
EVENTS = "text/event-stream"
JSONL = "application/jsonl"

OF_FLOW = ("org", "project", "slug")
PAGED = (pagination.MANAGED_LIMIT, pagination.CURSOR)
FLOW_HIDDEN = Lookup(require_flow, OF_FLOW)
CALL_HEADERS = (parameters.IDEMPOTENCY_KEY, parameters.TRACEPARENT, parameters.TRACESTATE)

RUNNING, READING = "Running a flow", "Reading a run"
FLOWS, KEYS, VIEWER, SERVER = "Managing flows", "Managing keys", "Signing in a browser", "The server"
SENDING = "Sending traces"
OTLP = ("", "/otel", "/api/public/otel", "/v1/private/otel")
"""Before the paths of OTLP: none, and what exporters of other products have there."""

_reading = partial(Endpoint, "GET", access="read", tag=READING, doing="read runs")
_starting = partial(
    Endpoint,
    "POST",
    access="run",
    tag=RUNNING,
    query=(parameters.VERSION,),
    headers=(parameters.SESSION_ID,),
    raw_headers=CALL_HEADERS,
    hides=FLOW_HIDDEN,
    doing="start runs",
)
_listing_flows = partial(_reading, tag=FLOWS, query=PAGED)
_managing_flows = partial(Endpoint, access="admin", tag=FLOWS, hides=FLOW_HIDDEN, doing="manage flows")
_managing_keys = partial(Endpoint, access="admin", tag=KEYS, doing="manage keys")
_signing_in = partial(Endpoint, access="read", tag=VIEWER, doing="sign in a browser")
_sending = partial(
    Endpoint,
    "POST",
    answer=Answer(
        (dict[str, Any],), "All is stored but what `partialSuccess` counts.", also=("application/x-protobuf",)
    ),
    access="record",
    tag=SENDING,
    body=bodies.OTLP_BODY,
    headers=(otlp.FLOW,),
    raw_headers=(otlp.CONTENT_ENCODING,),
    doing="send traces",
)
_open = partial(Endpoint, "GET", access="open", tag=SERVER)

RANGES = {206: "The bytes that `Range` asks for.", 304: "The caller has it already."}
EXECUTED = Answer((CompletedResult, ToolCallsRequired), "The run has completed, or waits for tools.")
WALKED = Answer((str,), "Events as server-sent events.", media_type=EVENTS)
QUEUED = Answer((JobAccepted,), "The job is queued.", status=202)
JOB = Answer((JobState,), "How far the job is.")


def _of_a_run(path: str, run: Lookup, trace: Lookup) -> list[Endpoint]:
    """The endpoints below a path that names a run."""
    reading = partial(_reading, finds=run)
    return [
        reading(
            path,
            runs.summary,
            "The summary of a run",
            Answer((RunSummary,), "The run as of this moment."),
        ),
        reading(
            f"{path}/trace",
            runs.trace,
            "The whole trace",
            Answer((Trace,), "The trace as of this moment."),
            finds=trace,
        ),
        reading(
            f"{path}/trace/stream",
            runs.stream,
            "The live trace",
            Answer((str,), "Events as server-sent events.", media_type=EVENTS),
            query=(runs.AFTER,),
            headers=(runs.LAST_EVENT_ID,),
            is_lasting=True,
        ),
        reading(
            f"{path}/trace/outline",
            outline.outline,
            "The outline",
            Answer((OutlinePage,), "Rows of the tree, as columns."),
            query=(outline.AFTER_ROW, outline.ROWS, outline.OF_SEQ, outline.PARTIAL),
            headers=(outline.ACCEPT_ENCODING,),
        ),
        reading(
            f"{path}/trace/timeline",
            outline.timeline,
            "The timeline",
            Answer((Timeline,), "Lanes of buckets."),
            query=(outline.FROM_MS, outline.TO_MS, outline.BUCKETS, outline.OF_SEQ),
            headers=(outline.ACCEPT_ENCODING,),
        ),
        reading(
            f"{path}/export",
            export.export,
            "The run as a file",
            Answer((dict[str, Any],), "The run in the format that was asked for.", also=(JSONL,)),
            query=(export.FORMAT,),
        ),
        reading(
            f"{path}/steps/{{step_id}}/trace",
            runs.step_trace,
            "One step's attempts",
            Answer((StepTrace, StepAttempts), "One attempt; with `attempt=all` every one."),
            query=(runs.ATTEMPT, runs.LOOP_INDEX, runs.POSITION, runs.PART_BYTES_AT_MOST),
        ),
        reading(
            f"{path}/steps/{{step_id}}/payload",
            payload.payload,
            "What went into a step or came out of it",
            Answer((dict,), "The content as JSON.", beside=RANGES),
            query=(payload.PART, payload.ONE_ATTEMPT, runs.LOOP_INDEX, runs.POSITION),
            headers=(payload.RANGE, payload.IF_RANGE, payload.IF_NONE_MATCH),
        ),
        reading(
            f"{path}/steps/{{step_id}}/diff",
            diff.step_diff,
            "What differs between two attempts of a step",
            Answer((AttemptsDiff,), "The differences."),
            query=(
                *(payload.ONE_ATTEMPT, runs.LOOP_INDEX, runs.POSITION),
                *(diff.WITH_ATTEMPT, diff.WITH_LOOP_INDEX, diff.WITH_POSITION),
            ),
            is_lasting=True,
        ),
        Endpoint(
            "POST",
            f"{path}/rerun",
            rerun.rerun,
            "Run a run again",
            Answer((JobAccepted,), "The new run is queued.", status=202),
            access="run",
            tag=RUNNING,
            body=bodies.RERUN_BODY,
            headers=(parameters.SESSION_ID,),
            raw_headers=CALL_HEADERS,
            finds=run,
            doing="start runs",
        ),
        Endpoint(
            "DELETE",
            path,
            cancel.cancel,
            "Cancel or delete a run",
            Answer((CancelResult,), "The run has been cancelled, or deleted.", status=202),
            access="run",
            tag=RUNNING,
            query=(cancel.PURGE,),
            finds=run,
            doing="cancel runs",
        ),
    ]


ENDPOINTS: list[Endpoint] = [
    # Ahead of the paths of one run, which would take its name for an id.
    _reading(
        f"{API}/flow-runs/histogram",
        run_lists.histogram,
        "How many runs there were when",
        Answer((RunHistogram,), "Counts of runs by time."),
        query=(*run_lists.FILTERS, run_lists.BUCKETS, run_lists.IS_ROUND),
        refuses_unknown=True,
    ),
    _reading(
        f"{API}/flow-runs/stream",
        run_lists.stream,
        "The live list of runs",
        Answer((str,), "Changes as server-sent events.", media_type=EVENTS),
        query=(*run_lists.FILTERS, runs.AFTER),
        headers=(runs.LAST_EVENT_ID,),
        refuses_unknown=True,
        is_lasting=True,
    ),
    Endpoint(
        "POST",
        f"{API}/flow-runs/import",
        export.import_run,
        "Import a run",
        Answer((RunSummary,), "The run, which is there now.", status=201),
        access="admin",
        tag=READING,
        body=bodies.RUN_FILE_BODY,
        doing="import runs",
        is_lasting=True,
    ),
    *_of_a_run(
        RUN,
        Lookup(run_by_id, ("execution_id",), "run"),
        Lookup(trace_by_id, ("execution_id",), "opened"),
    ),
    _starting(
        f"{FLOW}/execute", execute.execute, "Run a flow", EXECUTED, body=bodies.EXECUTE_BODY, is_lasting=True
    ),
    *_of_a_run(
        RUN_OF_FLOW,
        Lookup(run_of_flow, (*OF_FLOW, "execution_id"), "run"),
        Lookup(trace_of_flow, (*OF_FLOW, "execution_id"), "opened"),
    ),
    _starting(f"{FLOW}/jobs", jobs.queue_job, "Queue a run", QUEUED, body=bodies.JOB_BODY),
    _reading(
        f"{FLOW}/jobs",
        jobs.jobs,
        "The jobs of a flow",
        Answer((JobPage,), "A page of jobs."),
        tag=RUNNING,
        query=(jobs.STATUS, pagination.LIMIT, pagination.CURSOR),
    ),
    _reading(f"{FLOW}/jobs/{{execution_id}}", jobs.job, "How far a job is", JOB, tag=RUNNING),
    _starting(
        f"{FLOW}/step", steps.step, "Step through a flow", WALKED, body=bodies.STEP_BODY, is_lasting=True
    ),
    _reading(
        f"{API}/flow-runs",
        run_lists.runs,
        "The project's runs",
        Answer((RunPage,), "A page of runs."),
        query=(*run_lists.FILTERS, pagination.LIMIT, pagination.CURSOR),
        refuses_unknown=True,
    ),
    _reading(
        f"{RUN}/diff/{{other_id}}",
        diff.diff,
        "What differs between two runs",
        Answer((RunDiff,), "The differences."),
        query=(diff.ALL,),
        finds=Lookup(runs_by_id, ("execution_id", "other_id"), "runs"),
        is_lasting=True,
    ),
    _starting(
        f"{VERSION}/execute",
        execute.execute,
        "Run one version of a flow",
        EXECUTED,
        description="Runs published version `v1`, `v2`, … or the draft, `v0`, and answers when it has ended.",
        body=bodies.EXECUTE_BODY,
        is_lasting=True,
    ),
    _starting(
        f"{VERSION}/jobs",
        jobs.queue_job,
        "Queue a run of one version",
        QUEUED,
        description="Queues a run of published version `v1`, `v2`, … or of the draft, `v0`.",
        body=bodies.JOB_BODY,
    ),
    _reading(
        f"{VERSION}/jobs/{{execution_id}}",
        jobs.job,
        "How far a job of one version is",
        JOB,
        description="The state of a job, below the path that it was queued at. A job of another version is"
        " not found.",
        tag=RUNNING,
    ),
    _starting(
        f"{VERSION}/step",
        steps.step,
        "Step through one version of a flow",
        WALKED,
        description="The same with published version `v1`, `v2`, …; the draft cannot be asked for by number.",
        body=bodies.STEP_BODY,
        is_lasting=True,
    ),
    _reading(
        f"{API}/seq/sessions/{{session_id}}",
        sessions.session,
        "The runs of a session",
        Answer((SessionPage,), "The session, or a page of it."),
        query=(sessions.LIMIT, pagination.CURSOR),
    ),
    _listing_flows(
        f"{API}/flows",
        flows.own_flows,
        "The flows of the key's project",
        Answer((FlowList,), "The flows, by slug."),
    ),
    _listing_flows(
        MANAGED,
        flows.flows,
        "A project's flows",
        Answer((FlowList,), "The flows, by slug."),
    ),
    _listing_flows(
        f"{MANAGED}/{{slug}}",
        flows.flow,
        "A flow and its versions",
        Answer((FlowHistory,), "The flow."),
    ),
    _reading(
        f"{MANAGED}/{{slug}}/versions/{{number:number}}",
        flows.flow_version,
        "A version of a flow",
        Answer((FlowTree,), "The flow's tree of steps."),
        tag=FLOWS,
    ),
    _managing_flows(
        "PUT",
        f"{MANAGED}/{{slug}}",
        flows.push,
        "Push a flow",
        Answer((PushedFlow,), "The flow; what it is in production has not changed."),
        body=bodies.FLOW_BODY,
        hides=Lookup(require_project, ("org", "project")),
    ),
    _managing_flows(
        "DELETE",
        f"{MANAGED}/{{slug}}",
        flows.delete,
        "Delete a flow",
        Answer((), "The flow is deleted; its runs stay.", status=204),
    ),
    _managing_flows(
        "POST",
        f"{MANAGED}/{{slug}}/publish",
        flows.publish,
        "Publish a flow",
        Answer((FlowVersionNumber,), "The version that is now in production."),
    ),
    _managing_flows(
        "PUT",
        f"{MANAGED}/{{slug}}/production",
        flows.set_production,
        "Roll back or forward",
        Answer((FlowInfo,), "The flow with that version in production."),
        body=bodies.PRODUCTION_BODY,
    ),
    _managing_keys(
        "GET",
        f"{API}/keys",
        keys.keys,
        "The project's keys",
        Answer((KeyList,), "The keys, oldest first."),
        query=PAGED,
    ),
    _managing_keys(
        "POST",
        f"{API}/keys",
        keys.create_key,
        "Make a key",
        Answer((NewKeyInfo,), "The key, shown this once.", status=201),
        body=bodies.KEY_BODY,
    ),
    _managing_keys(
        "DELETE",
        f"{API}/keys/{{key_id:number}}",
        keys.revoke_key,
        "Revoke a key",
        Answer((KeyInfo,), "The key, revoked."),
    ),
    _managing_keys(
        "GET",
        f"{API}/audit",
        keys.audit,
        "Who changed what",
        Answer((AuditPage,), "A page of the audit log."),
        query=(keys.ACTION, pagination.SINCE, pagination.LIMIT, pagination.CURSOR),
        doing="read the audit log",
        refuses_unknown=True,
    ),
    _signing_in(
        "POST",
        f"{API}/viewer/session",
        viewer.sign_in,
        "Sign in",
        Answer((), "Signed in; the cookie and `X-Viewer-Proof` stand for the key.", status=204),
    ),
    _signing_in(
        "DELETE", f"{API}/viewer/session", viewer.sign_out, "Sign out", Answer((), "Signed out.", status=204)
    ),
    _signing_in(
        "GET",
        f"{API}/viewer/me",
        viewer.me,
        "Who asks",
        Answer((ViewerIdentity,), "The key, its role and its project."),
    ),
    _signing_in(
        "POST",
        f"{API}/viewer/tickets",
        viewer.ticket,
        "Make a link that signs in",
        Answer((ViewerTicket,), "The link, shown this once.", status=201),
        body=bodies.TICKET_BODY,
    ),
    *(
        _sending(path, otlp.traces, "Send traces")
        for path in (*(f"{prefix}/v1/traces" for prefix in OTLP), "/", "/otel")
    ),
    *(_sending(f"{prefix}/v1/logs", otlp.logs, "Send logs") for prefix in OTLP),
    *(_sending(f"{prefix}/v1/metrics", otlp.metrics, "Send metrics") for prefix in OTLP),
    _open(
        f"{API}/schemas/flow.json",
        execute.flow_file_schema,
        "JSON Schema of flow files",
        Answer((dict[str, Any],), "The JSON Schema."),
    ),
    _open(
        "/health",
        execute.health,
        "Whether the server can work",
        Answer((Health,), "The server works; `degraded` says that somebody should look."),
    ),
    _open(
        "/ready",
        execute.ready,
        "Whether calls should come here",
        Answer((Readiness,), "The server takes calls."),
    ),
]

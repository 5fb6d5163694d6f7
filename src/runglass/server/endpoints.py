"""The table of all endpoints.

Routes, access, the checks of parameters, the OpenAPI document and the tests of roles come from it. An
endpoint that is not here does not exist. Hot ones stand first, as the router tries one path after the other.

More than 300 lines: one table.
"""

from typing import Any

from runglass.admin_api import (
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
from runglass.diff.run_diff import RunDiff
from runglass.outline import OutlinePage
from runglass.run_api import (
    CompletedResult,
    JobAccepted,
    JobPage,
    JobState,
    RunHistogram,
    RunPage,
    ToolCallsRequired,
)
from runglass.server.endpoint import Answer, Endpoint, Lookup
from runglass.server.requests import pagination, parameters, run_query
from runglass.server.requests import schemas as bodies
from runglass.server.routes import (
    audit,
    cancel,
    diff,
    execute,
    export,
    flows,
    jobs,
    keys,
    outline,
    payload,
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
from runglass.server.services.health import Health
from runglass.session import SessionPage
from runglass.timeline import Timeline
from runglass.trace import RunSummary, StepAttempts, StepTrace, Trace

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

RUNNING, READING = "Running a flow", "Reading a run"
FLOWS, KEYS, VIEWER, SERVER = "Managing flows", "Managing keys", "Signing in a browser", "The server"

STARTING: dict[str, Any] = {
    "access": "run",
    "tag": RUNNING,
    "query": (parameters.VERSION,),
    "headers": (parameters.SESSION_ID,),
    "raw_headers": (parameters.IDEMPOTENCY_KEY, parameters.TRACEPARENT, parameters.TRACESTATE),
    "hides": FLOW_HIDDEN,
    "doing": "start runs",
}
"""The answers and parameters that all endpoints that start a run have in common."""

RANGES = {206: "The bytes that `Range` asks for.", 304: "The caller has it already."}
EXECUTED = Answer((CompletedResult, ToolCallsRequired), "The run has completed, or waits for tools.")
WALKED = Answer((str,), "Events as server-sent events.", media_type=EVENTS)
QUEUED = Answer((JobAccepted,), "The job is queued.", status=202)
JOB = Answer((JobState,), "How far the job is.")


def _of_a_run(path: str, run: Lookup, trace: Lookup) -> list[Endpoint]:
    """The endpoints below a path that names a run."""
    return [
        Endpoint(
            "GET",
            path,
            runs.summary,
            "read",
            READING,
            "The summary of a run",
            Answer((RunSummary,), "The run as of this moment."),
            finds=run,
        ),
        Endpoint(
            "GET",
            f"{path}/trace",
            runs.trace,
            "read",
            READING,
            "The whole trace",
            Answer((Trace,), "The trace as of this moment."),
            finds=trace,
        ),
        Endpoint(
            "GET",
            f"{path}/trace/stream",
            runs.stream,
            "read",
            READING,
            "The live trace",
            Answer((str,), "Events as server-sent events.", media_type=EVENTS),
            query=(runs.AFTER,),
            headers=(runs.LAST_EVENT_ID,),
            finds=run,
            is_lasting=True,
        ),
        Endpoint(
            "GET",
            f"{path}/trace/outline",
            outline.outline,
            "read",
            READING,
            "The outline",
            Answer((OutlinePage,), "Rows of the tree, as columns."),
            query=(outline.AFTER_ROW, outline.ROWS, outline.OF_SEQ),
            headers=(outline.ACCEPT_ENCODING,),
            finds=run,
        ),
        Endpoint(
            "GET",
            f"{path}/trace/timeline",
            outline.timeline,
            "read",
            READING,
            "The timeline",
            Answer((Timeline,), "Lanes of buckets."),
            query=(outline.FROM_MS, outline.TO_MS, outline.BUCKETS, outline.OF_SEQ),
            headers=(outline.ACCEPT_ENCODING,),
            finds=run,
        ),
        Endpoint(
            "GET",
            f"{path}/export",
            export.export,
            "read",
            READING,
            "The run as a file",
            Answer((dict[str, Any],), "The run in the format that was asked for.", also=(JSONL,)),
            query=(export.FORMAT,),
            finds=run,
        ),
        Endpoint(
            "GET",
            f"{path}/steps/{{step_id}}/trace",
            runs.step_trace,
            "read",
            READING,
            "One step's attempts",
            Answer((StepTrace, StepAttempts), "One attempt; with `attempt=all` every one."),
            query=(runs.ATTEMPT, runs.LOOP_INDEX),
            finds=run,
        ),
        Endpoint(
            "GET",
            f"{path}/steps/{{step_id}}/payload",
            payload.payload,
            "read",
            READING,
            "What went into a step or came out of it",
            Answer((dict,), "The content as JSON.", beside=RANGES),
            query=(payload.PART, payload.ONE_ATTEMPT, runs.LOOP_INDEX),
            headers=(payload.RANGE, payload.IF_RANGE, payload.IF_NONE_MATCH),
            finds=run,
        ),
        Endpoint(
            "DELETE",
            path,
            cancel.cancel,
            "run",
            RUNNING,
            "Cancel or delete a run",
            Answer((CancelResult,), "The run has been cancelled, or deleted.", status=202),
            query=(cancel.PURGE,),
            finds=run,
            doing="cancel runs",
        ),
    ]


ENDPOINTS: list[Endpoint] = [
    # Ahead of the paths of one run, which would take its name for an id.
    Endpoint(
        "GET",
        f"{API}/flow-runs/histogram",
        run_lists.histogram,
        "read",
        READING,
        "How many runs there were when",
        Answer((RunHistogram,), "Counts of runs by time."),
        query=(*run_query.FILTERS, run_lists.BUCKETS),
        refuses_unknown=True,
    ),
    *_of_a_run(
        RUN,
        Lookup(run_by_id, ("execution_id",), "run"),
        Lookup(trace_by_id, ("execution_id",), "opened"),
    ),
    Endpoint(
        "POST",
        f"{FLOW}/execute",
        execute.execute,
        summary="Run a flow",
        answer=EXECUTED,
        body=bodies.EXECUTE_BODY,
        is_lasting=True,
        **STARTING,
    ),
    *_of_a_run(
        RUN_OF_FLOW,
        Lookup(run_of_flow, (*OF_FLOW, "execution_id"), "run"),
        Lookup(trace_of_flow, (*OF_FLOW, "execution_id"), "opened"),
    ),
    Endpoint(
        "POST",
        f"{FLOW}/jobs",
        jobs.queue_job,
        summary="Queue a run",
        answer=QUEUED,
        body=bodies.JOB_BODY,
        **STARTING,
    ),
    Endpoint(
        "GET",
        f"{FLOW}/jobs",
        jobs.jobs,
        "read",
        RUNNING,
        "The jobs of a flow",
        Answer((JobPage,), "A page of jobs."),
        query=(jobs.STATUS, pagination.LIMIT, pagination.CURSOR),
    ),
    Endpoint("GET", f"{FLOW}/jobs/{{execution_id}}", jobs.job, "read", RUNNING, "How far a job is", JOB),
    Endpoint(
        "POST",
        f"{FLOW}/step",
        steps.step,
        summary="Walk through a flow",
        answer=WALKED,
        body=bodies.STEP_BODY,
        is_lasting=True,
        **STARTING,
    ),
    Endpoint(
        "GET",
        f"{API}/flow-runs",
        run_lists.runs,
        "read",
        READING,
        "The project's runs",
        Answer((RunPage,), "A page of runs."),
        query=(
            *run_query.FILTERS,
            pagination.LIMIT,
            pagination.CURSOR,
        ),
        refuses_unknown=True,
    ),
    Endpoint(
        "GET",
        f"{RUN}/diff/{{other_id}}",
        diff.diff,
        "read",
        READING,
        "What differs between two runs",
        Answer((RunDiff,), "The differences."),
        query=(diff.ALL,),
        finds=Lookup(runs_by_id, ("execution_id", "other_id"), "runs"),
        is_lasting=True,
    ),
    Endpoint(
        "POST",
        f"{VERSION}/execute",
        execute.execute,
        summary="Run one version of a flow",
        description="Runs published version `v1`, `v2`, … or the draft, `v0`, and answers when it has ended.",
        answer=EXECUTED,
        body=bodies.EXECUTE_BODY,
        is_lasting=True,
        **STARTING,
    ),
    Endpoint(
        "POST",
        f"{VERSION}/jobs",
        jobs.queue_job,
        summary="Queue a run of one version",
        description="Queues a run of published version `v1`, `v2`, … or of the draft, `v0`.",
        answer=QUEUED,
        body=bodies.JOB_BODY,
        **STARTING,
    ),
    Endpoint(
        "GET",
        f"{VERSION}/jobs/{{execution_id}}",
        jobs.version_job,
        "read",
        RUNNING,
        "How far a job of one version is",
        JOB,
    ),
    Endpoint(
        "POST",
        f"{VERSION}/step",
        steps.step,
        summary="Walk through one version of a flow",
        description="The same with published version `v1`, `v2`, …; the draft cannot be asked for by number.",
        answer=WALKED,
        body=bodies.STEP_BODY,
        is_lasting=True,
        **STARTING,
    ),
    Endpoint(
        "GET",
        f"{API}/seq/sessions/{{session_id}}",
        sessions.session,
        "read",
        READING,
        "The runs of a session",
        Answer((SessionPage,), "The session, or a page of it."),
        query=(sessions.LIMIT, pagination.CURSOR),
    ),
    Endpoint(
        "GET",
        f"{API}/flows",
        flows.own_flows,
        "read",
        FLOWS,
        "The flows of the key's project",
        Answer((FlowList,), "The flows, by slug."),
        query=PAGED,
    ),
    Endpoint(
        "GET",
        MANAGED,
        flows.flows,
        "read",
        FLOWS,
        "A project's flows",
        Answer((FlowList,), "The flows, by slug."),
        query=PAGED,
    ),
    Endpoint(
        "GET",
        f"{MANAGED}/{{slug}}",
        flows.flow,
        "read",
        FLOWS,
        "A flow and its versions",
        Answer((FlowHistory,), "The flow."),
        query=PAGED,
    ),
    Endpoint(
        "GET",
        f"{MANAGED}/{{slug}}/versions/{{number:number}}",
        flows.flow_version,
        "read",
        FLOWS,
        "A version of a flow",
        Answer((FlowTree,), "The flow's tree of steps."),
    ),
    Endpoint(
        "PUT",
        f"{MANAGED}/{{slug}}",
        flows.push,
        "admin",
        FLOWS,
        "Push a flow",
        Answer((PushedFlow,), "The flow; what it is in production has not changed."),
        body=bodies.FLOW_BODY,
        hides=Lookup(require_project, ("org", "project")),
        doing="manage flows",
    ),
    Endpoint(
        "POST",
        f"{MANAGED}/{{slug}}/publish",
        flows.publish,
        "admin",
        FLOWS,
        "Publish a flow",
        Answer((FlowVersionNumber,), "The version that is now in production."),
        hides=FLOW_HIDDEN,
        doing="manage flows",
    ),
    Endpoint(
        "PUT",
        f"{MANAGED}/{{slug}}/production",
        flows.set_production,
        "admin",
        FLOWS,
        "Roll back or forward",
        Answer((FlowInfo,), "The flow with that version in production."),
        body=bodies.PRODUCTION_BODY,
        hides=FLOW_HIDDEN,
        doing="manage flows",
    ),
    Endpoint(
        "GET",
        f"{API}/keys",
        keys.keys,
        "admin",
        KEYS,
        "The project's keys",
        Answer((KeyList,), "The keys, oldest first."),
        query=PAGED,
        doing="manage keys",
    ),
    Endpoint(
        "POST",
        f"{API}/keys",
        keys.create_key,
        "admin",
        KEYS,
        "Make a key",
        Answer((NewKeyInfo,), "The key, shown this once.", status=201),
        body=bodies.KEY_BODY,
        doing="manage keys",
    ),
    Endpoint(
        "DELETE",
        f"{API}/keys/{{key_id:number}}",
        keys.revoke_key,
        "admin",
        KEYS,
        "Revoke a key",
        Answer((KeyInfo,), "The key, revoked."),
        doing="manage keys",
    ),
    Endpoint(
        "GET",
        f"{API}/audit",
        audit.audit,
        "admin",
        KEYS,
        "Who changed what",
        Answer((AuditPage,), "A page of the audit log."),
        query=(audit.ACTION, pagination.SINCE, pagination.LIMIT, pagination.CURSOR),
        doing="read the audit log",
        refuses_unknown=True,
    ),
    Endpoint(
        "POST",
        f"{API}/viewer/session",
        viewer.sign_in,
        "read",
        VIEWER,
        "Sign in",
        Answer((), "Signed in; the cookie stands for the key.", status=204),
    ),
    Endpoint(
        "DELETE",
        f"{API}/viewer/session",
        viewer.sign_out,
        "read",
        VIEWER,
        "Sign out",
        Answer((), "Signed out.", status=204),
    ),
    Endpoint(
        "GET",
        f"{API}/viewer/me",
        viewer.me,
        "read",
        VIEWER,
        "Who asks",
        Answer((ViewerIdentity,), "The key, its role and its project."),
    ),
    Endpoint(
        "POST",
        f"{API}/viewer/tickets",
        viewer.ticket,
        "read",
        VIEWER,
        "Make a link that signs in",
        Answer((ViewerTicket,), "The link, shown this once.", status=201),
        body=bodies.TICKET_BODY,
    ),
    Endpoint(
        "GET",
        f"{API}/schemas/flow.json",
        execute.flow_file_schema,
        "open",
        SERVER,
        "JSON Schema of flow files",
        Answer((dict[str, Any],), "The JSON Schema."),
    ),
    Endpoint(
        "GET",
        "/health",
        execute.health,
        "open",
        SERVER,
        "Whether the server can work",
        Answer((Health,), "The server works; `degraded` says that somebody should look."),
    ),
]

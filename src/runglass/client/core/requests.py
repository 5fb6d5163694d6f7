"""Requests as plain data: one function for each call of the client, which describes it and does no I/O.

Arguments are checked here, before anything is sent. Transports perform a `RequestSpec`, and `responses.py`
reads the response.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from types import NoneType
from typing import IO, TYPE_CHECKING, Generic, Literal, TypeVar, get_args
from urllib.parse import quote, urlencode

import msgspec

from runglass.log.trace import RunStatus, RunSummary, StepAttempts, StepTrace, Trace
from runglass.support.safe_text import is_whole
from runglass.wire.run_api import ExportFormat, JobState, RunPage
from runglass.wire.session import SessionPage

if TYPE_CHECKING:
    from runglass.diff.run_diff import RunDiff
    from runglass.outlines.outline import OutlinePage

T = TypeVar("T")

Attempt = Literal["latest", "all"] | int
Time = str | datetime
"""A moment: aware, or ISO 8601 text, which is UTC unless it says otherwise."""

IDEMPOTENCY_KEY = "Idempotency-Key"

HALF = "it holds half a surrogate pair, which is not a character and cannot be sent"


class RequestSpec(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One request and the type of its answer. `path` is quoted and starts below the base URL.

    With `NoneType` as the type, the body of a good answer is not read.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    answer: type[T]
    query: tuple[tuple[str, str], ...] = ()
    headers: dict[str, str] = {}
    body: bytes | None = None
    sets_state: bool = False
    """Whether it adds nothing, though it is a POST."""

    @property
    def target(self) -> str:
        """Path and query as they go on the request line."""
        return f"{self.path}?{urlencode(self.query, safe=',')}" if self.query else self.path

    @property
    def repeatable(self) -> bool:
        """Whether the server may get the request twice without doing its work twice."""
        return self.method != "POST" or self.sets_state or self.moves_a_run

    @property
    def moves_a_run(self) -> bool:
        """Whether the request may start or resume a run, also where no answer comes back."""
        return IDEMPOTENCY_KEY in self.headers

    def __str__(self) -> str:
        return f"{self.method} {self.path!r}"


class FlowAddress(msgspec.Struct, frozen=True):
    """The address of a flow: the three names in its paths."""

    org: str
    project: str
    slug: str

    def __str__(self) -> str:
        return f"{self.org}/{self.project}/{self.slug}"

    def parts(self) -> str:
        """The three names, each quoted. Raises ValueError for one that no path can carry."""
        return "/".join(path_part(name, value) for name, value in msgspec.structs.asdict(self).items())

    def path(self) -> str:
        """The path below which the flow is run, and its runs are read. Raises as `parts` does."""
        return f"/seq/{self.parts()}"


def flow_address(
    path: str | None,
    *,
    org: str | None,
    project: str | None,
    slug: str | None,
    default_org: str | None,
    default_project: str | None,
) -> FlowAddress:
    """The flow's address from arguments of `client.flow(…)`. Raises ValueError naming the missing part."""
    if path is not None:
        if org is not None or project is not None or slug is not None:
            raise ValueError(
                f"flow {path!r} is named twice: give the path, or org, project and slug, not both"
            )
        parts = path.split("/")
        if len(parts) == 3:
            org, project, slug = parts
        elif len(parts) == 1:
            slug = path
        else:
            raise ValueError(
                f"flow {path!r} has {len(parts)} parts: write 'org/project/slug', or 'slug' alone"
            )
    org = default_org if org is None else org
    project = default_project if project is None else project
    if org is None or project is None or slug is None:
        given = {"org": org, "project": project, "slug": slug}
        missing = " and ".join(name for name, value in given.items() if value is None)
        raise ValueError(
            f"flow {path or slug!r} has no {missing}: write 'org/project/slug', "
            f"pass the missing part, or give the client defaults: Client(org=…, project=…)"
        )
    address = FlowAddress(org, project, slug)
    address.path()
    return address


def run_path(execution_id: str | uuid.UUID, *, flow: FlowAddress | None = None) -> str:
    """The path of a run, below its flow or by id alone."""
    base = "/flow-runs" if flow is None else f"{flow.path()}/runs"
    return f"{base}/{path_part('execution_id', str(execution_id))}"


def summary(run: str) -> RequestSpec[RunSummary]:
    """The summary of the run at path `run`."""
    return RequestSpec(method="GET", path=run, answer=RunSummary)


def outline(run: str, *, after: int | None, limit: int | None, seq: int | None) -> RequestSpec["OutlinePage"]:
    """A page of the outline of the run at path `run`. Raises ValueError for numbers that no page has."""
    # Few programs ask for it, and none is to wait for its types.
    from runglass.outlines.outline import OutlinePage

    wanted = {"after": (after, 0), "limit": (limit, 1), "seq": (seq, 0)}
    for name, (value, least) in wanted.items():
        if value is not None and not is_count(value, least):
            raise ValueError(f"{name} must be a whole number from {least} on, not {value!r}")
    query = tuple((name, str(value)) for name, (value, _) in wanted.items() if value is not None)
    return RequestSpec(method="GET", path=f"{run}/trace/outline", answer=OutlinePage, query=query)


def trace(run: str) -> RequestSpec[Trace]:
    """The whole trace of the run at path `run`."""
    return RequestSpec(method="GET", path=f"{run}/trace", answer=Trace)


def step_trace(
    run: str, step_id: str, *, attempt: Attempt, loop_index: int | Sequence[int] | None
) -> RequestSpec[StepTrace | StepAttempts]:
    """One attempt of a step, or with `attempt="all"` every one. Raises ValueError for impossible numbers."""
    if attempt not in ("latest", "all") and not is_count(attempt, 1):
        raise ValueError(f"attempt must be 'latest', 'all' or a number from 1 on, not {attempt!r}")
    query = [("attempt", str(attempt))]
    if loop_index is not None:
        indices = [loop_index] if isinstance(loop_index, int) else loop_index
        if not (isinstance(indices, (list, tuple)) and indices and all(is_count(at, 0) for at in indices)):
            raise ValueError(
                f"loop_index must be a number from 0 on, or a tuple, outer loop first, not {loop_index!r}"
            )
        query.append(("loop_index", ",".join(map(str, indices))))
    return RequestSpec(
        method="GET",
        path=f"{run}/steps/{path_part('step_id', step_id)}/trace",
        answer=StepAttempts if attempt == "all" else StepTrace,
        query=tuple(query),
    )


def diff(run: str, other_id: str | uuid.UUID, *, all: bool) -> RequestSpec["RunDiff"]:
    """What differs between a run, named by its id at path `run`, and another one."""
    # Few programs ask for it, and none is to wait for its types.
    from runglass.diff.run_diff import RunDiff

    path = f"{run}/diff/{path_part('other', str(other_id))}"
    return RequestSpec(method="GET", path=path, answer=RunDiff, query=(("all", "true"),) if all else ())


def cancel(run: str) -> RequestSpec[None]:
    """End the run at path `run`."""
    return RequestSpec(method="DELETE", path=run, answer=NoneType)


def delete(run: str) -> RequestSpec[None]:
    """Delete the run at path `run` for good."""
    return RequestSpec(method="DELETE", path=run, answer=NoneType, query=(("purge", "true"),))


def job(jobs: str, execution_id: str) -> RequestSpec[JobState]:
    """The state of a job; `jobs` is the path that it was queued at."""
    path = f"{jobs}/{path_part('execution_id', execution_id)}"
    return RequestSpec(method="GET", path=path, answer=JobState)


class FlowId(msgspec.Struct, frozen=True):
    """The id of a flow, which its address does not contain."""

    id: str


def flow_id(flow: FlowAddress) -> RequestSpec[FlowId]:
    """Look up the id of a flow."""
    return RequestSpec(method="GET", path=f"/flows/{flow.parts()}", answer=FlowId)


def runs(
    *,
    flow_id: str | uuid.UUID | None,
    status: RunStatus | None,
    limit: int | None = None,
    cursor: str | None = None,
    query: str | None = None,
    flow: str | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> RequestSpec[RunPage]:
    """A page of runs, newest first. Raises ValueError for invalid arguments."""
    if flow is not None and flow_id is not None:
        raise ValueError("flow and flow_id exclude each other: name the flow by its slug or by its id")
    wanted = {
        "q": query,
        "flow_id": flow_id,
        "flow": flow,
        "status": status,
        "since": _time("since", since),
        "until": _time("until", until),
        "limit": limit,
        "cursor": cursor,
    }
    given = tuple((name, whole(name, str(value))) for name, value in wanted.items() if value is not None)
    return RequestSpec(method="GET", path="/flow-runs", answer=RunPage, query=given)


def session(session_id: str | uuid.UUID, *, limit: int | None) -> RequestSpec[SessionPage]:
    """The first page of the runs of a session, oldest first."""
    query = () if limit is None else (("limit", str(limit)),)
    path = f"/seq/sessions/{path_part('session_id', str(session_id))}"
    return RequestSpec(method="GET", path=path, answer=SessionPage, query=query)


def export(run: str, format: ExportFormat) -> RequestSpec[None]:
    """The run at path `run` as a file. Raises ValueError for a format that there is none of."""
    if format not in get_args(ExportFormat):
        raise ValueError(f"format must be one of {', '.join(get_args(ExportFormat))}, not {format!r}")
    return RequestSpec(method="GET", path=f"{run}/export", answer=NoneType, query=(("format", format),))


def import_run(file: IO[bytes]) -> RequestSpec[RunSummary]:
    """Make the run of a file, which is the body. Raises ValueError for one that is not open for bytes."""
    if not hasattr(file, "read") or hasattr(file, "encoding"):
        raise ValueError(f"file must be open for bytes, as open(path, 'rb') is, not {file!r:.100}")
    return RequestSpec(method="POST", path="/flow-runs/import", answer=RunSummary)


def following_page(call: RequestSpec[T], cursor: str) -> RequestSpec[T]:
    """The same list from `cursor` on."""
    query = (*(pair for pair in call.query if pair[0] != "cursor"), ("cursor", cursor))
    return msgspec.structs.replace(call, query=query)


def is_count(value: object, least: int) -> bool:
    """Whether the value is a whole number from `least` on; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _time(name: str, value: Time | None) -> str | None:
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise ValueError(f"{name} {value} has no time zone, so that nobody knows when it is; give it one")
    return value.isoformat()


def path_part(name: str, value: str) -> str:
    """The text as a part of a path, quoted. Raises ValueError for one that no path can carry."""
    # `.` and `..` survive quoting, and proxies would resolve them into another path.
    if value in ("", ".", ".."):
        raise ValueError(f"{name} may not be {value!r}")
    return quote(whole(name, value), safe="")


def whole(name: str, value: str) -> str:
    """The argument as it is. Raises ValueError for one that cannot be encoded."""
    if not is_whole(value):
        raise ValueError(f"{name} may not be {value!r}: {HALF}")
    return value

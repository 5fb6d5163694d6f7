"""Whether a store is consistent: logs without gaps, traces that are their fold, rows and sums that agree.

Shared work, to be performed as of one moment while others write. Runs are compared with the sums of their
rows, some thousand at a time; then the logs of the chosen ones are folded: small ones many at a time, large
ones page by page. Memory is bounded by the pages, and by the number of steps of one run.

More than 300 lines: what is compared with what is one list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from math import isclose
from typing import Any, NamedTuple

import msgspec

from runglass.log.fold import DAMAGE
from runglass.log.money import ZERO, add_usd, format_usd
from runglass.log.trace import TERMINAL, StepTrace
from runglass.store.catalog import project_of
from runglass.store.log_replay import LogReplay
from runglass.store.records import RECORDED
from runglass.store.run_tables import EVENTS, IS_RECORDED, ROWS_OF_RUN, SIZES, RowsOfRun
from runglass.store.statements import Dialect, Steps, every, fetch

SAMPLE = 200
"""How many runs are folded, spread over all, where not every one is."""
MOST_PROBLEMS = 1000
"""So many are named; the check ends with them."""
FIRST, LAST = -(2**63), 2**63 - 1

BELONGS = (
    ("api_key", "project_id", "project"),
    ("call", "project_id", "project"),
    ("flow", "project_id", "project"),
    ("flow_version", "flow_id", "flow"),
    ("run", "project_id", "project"),
    ("run", "flow_id", "flow"),
    ("viewer_session", "project_id", "project"),
    ("viewer_session", "key_id", "api_key"),
)
"""Tables, each with a column that has the id of a row of another one."""

_RUNS = (
    "SELECT no, id, project_id, status, trigger_type, head, owner, resume_head, log_bytes, open_bytes,"
    " change_no, has_content, EXISTS (SELECT 1 FROM ended_run WHERE run_no = no),"
    " EXISTS (SELECT 1 FROM purged_run WHERE run_no = no)"
    " OR EXISTS (SELECT 1 FROM importing_run WHERE run_no = no)"
    " FROM run WHERE no > :after ORDER BY no LIMIT :most"
)
_NUMBERS = {"event": "seq", "step": "position", "queue": "project_id"}
# What runs that were imported or recorded have cost, nobody has spent here.
_COSTS = (
    "SELECT run.project_id, sum(cost_usd) FROM run LEFT JOIN audit ON action = 'run.imported'"
    f" AND subject = run.id WHERE cost_usd IS NOT NULL AND subject IS NULL AND NOT {IS_RECORDED}"
    " GROUP BY run.project_id"
)
_REPEATED = (
    *("summary", "status", "flow_id", "version", "trigger_type", "session_id", "ended_at", "duration_ms"),
    *("cost_usd", "tokens"),
)
"""The columns of a run that repeat what its log says."""
_EVENTS = "SELECT run_no, seq, data FROM event WHERE {} ORDER BY seq"
_LATEST = "SELECT run_no, position, attempt, 1 AS latest, step_id, loop_path, status, data FROM step WHERE "
_EARLIER = (
    "SELECT run_no, position, attempt, 0 AS latest, step_id, loop_path, status, data FROM step_attempt WHERE "
)
_IN_ORDER = " ORDER BY position, attempt"
_OF_THESE = "run_no = ANY (:runs)"
TOLD_ATTEMPTS = RowsOfRun(
    tuple(
        f"(SELECT *, {latest} AS latest FROM {table}) AS {table}"
        for latest, table in enumerate(("step_attempt", "step"))
    ),
    "position, attempt, latest, step_id, loop_path, status, data",
    ("position", "attempt"),
)
"""All attempts, each with the table that it is in."""


class Checked(NamedTuple):
    """The checked parts, and their mistakes in one sentence each."""

    runs: int
    folded: int
    problems: list[str]


class Kind(NamedTuple):
    """What a kind of store has in a way of its own.

    `errors` selects the ids of runs whose row in `run_error` is not what theirs says. `columns_of` gives the
    columns of a run's row that follow from its summary, each with the values that it may have. `page` reads
    rows of a run behind a key.
    """

    sql: Dialect
    page: Callable[..., Any]
    errors: str
    columns_of: Callable[[bytes], Mapping[str, tuple[Any, ...]]]


class CheckLimits(NamedTuple):
    """How much is looked at together.

    The rows of so many `runs`; logs of so many bytes in all, or a page of one; and so many bytes of the steps
    of one run, whose log is read again for each further part.
    """

    runs: int = 5000
    log_bytes: int = 4 << 20
    step_bytes: int = 64 << 20


USUAL = CheckLimits()


class _Run(NamedTuple):
    no: int
    id: str
    project_id: int
    status: str
    trigger_type: str
    head: int
    owner: str | None
    resume_head: int
    log_bytes: int
    open_bytes: int
    change_no: int
    has_content: bool
    is_cleared: bool
    """Whether its checkpoints go bit by bit."""
    is_marked: bool
    """Whether it is said not to be there."""

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def is_early(self) -> bool:
        """Whether an early version wrote it, which counted less, and kept fewer numbers."""
        return self.change_no == 0

    @property
    def may_lose_content(self) -> bool:
        """Whether its content may be going at this moment, bit by bit."""
        return self.ended and self.has_content

    @property
    def waits(self) -> bool:
        """Whether any process may go on with it."""
        if self.trigger_type in RECORDED:
            return False
        is_resuming = self.status == "paused" and self.resume_head == self.head
        return self.owner is None and (self.status in ("pending", "running") or is_resuming)


class _Sum(NamedTuple):
    """The rows of a run in one table, the least and the greatest of their `_NUMBERS`, and their bytes."""

    rows: int = 0
    low: int = 1
    high: int = 0
    size: int = 0


_NONE = _Sum()
_Sums = Mapping[str, Mapping[int, _Sum]]


class IntegrityCheck:
    """One check of a store. Folds every run, or a sample. `tell` hears how many runs of how many are done."""

    def __init__(
        self, kind: Kind, *, every_run: bool, tell: Callable[[int, int], None], limits: CheckLimits = USUAL
    ) -> None:
        self._kind = kind
        self._limits = limits
        self._every_run = every_run
        self._tell = tell
        self._problems: list[str] = []
        self._folded = 0
        self._taken: defaultdict[int, int] = defaultdict(int)
        """Counted bytes of the runs of each project."""
        self._reserved: defaultdict[int, Decimal] = defaultdict(lambda: ZERO)
        self._changes: defaultdict[int, int] = defaultdict(int)

    def work(self) -> Steps[Checked]:
        yield from self._find_strays()
        [(total,)] = yield fetch("SELECT count(*) FROM run")
        distance = 1 if self._every_run else max(1, -(-total // SAMPLE))
        seen, after = 0, FIRST
        while after < LAST and len(self._problems) < MOST_PROBLEMS:
            rows = yield fetch(_RUNS, after=after, most=self._limits.runs)
            runs = [_Run(*row) for row in rows]
            upto = runs[-1].no if len(runs) == self._limits.runs else LAST
            sums = yield from self._read_sums(runs, after, upto)
            if len(self._problems) < MOST_PROBLEMS:
                self._compare(runs, sums)
                yield from self._add_reserved(runs, sums)
                yield from self._fold(runs[-seen % distance :: distance], sums)
            seen, after = seen + len(runs), upto
            self._tell(seen, total)
        yield from self._check_projects()
        if len(self._problems) >= MOST_PROBLEMS:
            del self._problems[MOST_PROBLEMS:]
            self._problems.append(f"there may be more: the check ended with the first {MOST_PROBLEMS:,}")
        return Checked(total, self._folded, self._problems)

    def _find_strays(self) -> Steps[None]:
        """Names rows that belong to no row of another table, those of runs apart."""
        for table, column, parent in BELONGS:
            found = yield fetch(
                f"SELECT own.{column}, count(*) FROM {table} AS own LEFT JOIN {parent} AS parent"
                f" ON parent.id = own.{column} WHERE parent.id IS NULL GROUP BY own.{column} LIMIT :most",
                most=MOST_PROBLEMS,
            )
            for value, rows in found:
                self._name_stray(f"table {table} has {rows} rows of {parent} {value}")
        for table in ("ended_run", "due_outline"):
            sql = f"SELECT run_no FROM {table} WHERE NOT EXISTS (SELECT 1 FROM run WHERE no = run_no)"
            for (run_no,) in (yield fetch(f"{sql} LIMIT :most", most=MOST_PROBLEMS)):
                self._name_stray(f"table {table} has run number {run_no}")
        sql = "SELECT key, run_id FROM call WHERE NOT EXISTS (SELECT 1 FROM run WHERE id = run_id)"
        for key, run_id in (yield fetch(f"{sql} LIMIT :most", most=MOST_PROBLEMS)):
            self._name_stray(f"the call {key!r} is of run {run_id}")
        for (run_id,) in (yield fetch(f"{self._kind.errors} LIMIT :most", most=MOST_PROBLEMS)):
            self._problems.append(f"the error of run {run_id} is not indexed as its row says it")

    def _name_stray(self, row: str) -> None:
        self._problems.append(f"{row}, which is not there")

    def _read_sums(self, runs: Sequence[_Run], after: int, upto: int) -> Steps[_Sums]:
        """The sums of the rows of these runs, which are all between the numbers; names rows of other runs."""
        known = {run.no for run in runs}
        # Of runs that are not there so many are read as can be named.
        between = {"after": after, "upto": upto, "most": len(runs) + MOST_PROBLEMS}
        sums: dict[str, dict[int, _Sum]] = {}
        for table in (*ROWS_OF_RUN, "queue"):
            number = _NUMBERS.get(table, "1")
            size = "0" if table == "queue" else SIZES.get(table, "length(data)")
            rows = yield fetch(
                f"SELECT * FROM (SELECT run_no, count(*), min({number}), max({number}), sum({size})"
                f" FROM {table} WHERE run_no > :after AND run_no <= :upto GROUP BY run_no) AS sums"
                " WHERE NOT EXISTS (SELECT 1 FROM purged_run WHERE purged_run.run_no = sums.run_no)"
                " AND NOT EXISTS (SELECT 1 FROM importing_run WHERE importing_run.run_no = sums.run_no)"
                " ORDER BY run_no LIMIT :most",
                **between,
            )
            found = sums[table] = {row[0]: _Sum(*map(int, row[1:])) for row in rows}
            for run_no in found.keys() - known:
                self._name_stray(f"table {table} has {found[run_no].rows} rows of run number {run_no}")
        return sums

    def _compare(self, runs: Sequence[_Run], sums: _Sums) -> None:
        """Compares the runs' rows with those sums, and adds them to those of their projects."""
        for run in runs:
            self._taken[run.project_id] += run.log_bytes + run.open_bytes
            self._changes[run.project_id] = max(self._changes[run.project_id], run.change_no)
            if run.is_marked:
                self._problems.append(f"run {run.id} is there, and marked as purged or as not imported yet")
                continue
            of_run = {table: found.get(run.no, _NONE) for table, found in sums.items()}
            self._problems += _unlike_its_rows(run, of_run)
            self._problems += _unlike_the_queue(run, of_run["queue"])

    def _add_reserved(self, runs: Sequence[_Run], sums: _Sums) -> Steps[None]:
        """Adds what the requests of these runs to models reserve."""
        sql = f"SELECT run_no, data FROM step WHERE {_OF_THESE} AND status = 'running'"
        for batch, _ in self._batches([run for run in runs if run.head and not run.ended], sums):
            projects = {run.no: run.project_id for run in batch}
            for run_no, data in (yield fetch(sql, runs=list(projects))):
                # One that cannot be read is named where its run is folded.
                with suppress(*DAMAGE):
                    if reservation := msgspec.json.decode(data, type=StepTrace).reservation:
                        reserved = self._reserved[projects[run_no]]
                        self._reserved[projects[run_no]] = add_usd(reserved, Decimal(reservation.usd))

    def _fold(self, runs: Sequence[_Run], sums: _Sums) -> Steps[None]:
        """Compares the logs of these runs with what is stored beside them."""
        for batch, size in self._batches([run for run in runs if not run.is_marked], sums):
            if size > self._limits.log_bytes:
                yield from self._fold_large(batch[0], sums)
            else:
                yield from self._fold_small(batch)

    def _batches(self, runs: Sequence[_Run], sums: _Sums) -> Iterator[tuple[list[_Run], int]]:
        """The runs in groups with no more than `log_bytes` of logs and steps, or of one; and their bytes."""
        batch: list[_Run] = []
        size = 0
        for run in runs:
            more = _bytes_of(run, sums, "event", "step", "step_attempt")
            if batch and size + more > self._limits.log_bytes:
                yield batch, size
                batch, size = [], 0
            batch.append(run)
            size += more
        if batch:
            yield batch, size

    def _fold_small(self, runs: Sequence[_Run]) -> Steps[None]:
        numbers = [run.no for run in runs]
        rows = yield from self._read_rows(numbers)
        events = _by_run((yield fetch(_EVENTS.format(_OF_THESE), runs=numbers)))
        sql = f"{_LATEST}{_OF_THESE} UNION ALL {_EARLIER}{_OF_THESE}{_IN_ORDER}"
        attempts = _by_run((yield fetch(sql, runs=numbers)))
        for run in runs:
            replay = LogReplay(run.id, may_lose_content=run.may_lose_content)
            self._problems += replay.take(events.get(run.no, ()))
            if replay.seq and not replay.is_damaged:
                self._problems += replay.unlike(attempts.get(run.no, ()))
                self._problems += replay.missing()
                self._problems += self._unlike_row(run, replay, rows[run.no])
        self._folded += len(runs)

    def _fold_large(self, run: _Run, sums: _Sums) -> Steps[None]:
        rows_of_run = yield from self._read_rows([run.no])
        windows = 1 + _bytes_of(run, sums, "step", "step_attempt") // self._limits.step_bytes
        width = max(1, -(-sums["step"].get(run.no, _NONE).high // windows))
        page = partial(self._kind.page, run_no=run.no, limit_bytes=self._limits.log_bytes)
        for window in range(windows):
            first, last = window * width + 1, LAST if window == windows - 1 else (window + 1) * width
            replay = LogReplay(run.id, may_lose_content=run.may_lose_content, first=first, last=last)
            while not replay.is_damaged:
                if not (events := (yield partial(page, rows=EVENTS, after=(replay.seq,)))):
                    break
                problems = replay.take(events)
                self._problems += problems if window == 0 else ()
            if replay.is_damaged or not replay.seq:
                break
            place = first - 1, LAST
            while place[0] <= last and (rows := (yield partial(page, rows=TOLD_ATTEMPTS, after=place))):
                self._problems += replay.unlike(row for row in rows if row[0] <= last)
                place = rows[-1][:2]
            self._problems += replay.missing()
            if window == 0:
                self._problems += self._unlike_row(run, replay, rows_of_run[run.no])
        self._folded += 1

    def _read_rows(self, numbers: Sequence[int]) -> Steps[dict[int, Mapping[str, Any]]]:
        names = ("no", *_REPEATED, *self._kind.columns_of(b"{}"))
        rows = yield fetch(f"SELECT {', '.join(names)} FROM run WHERE no = ANY (:runs)", runs=numbers)
        return {row[0]: dict(zip(names, row, strict=True)) for row in rows}

    def _unlike_row(self, run: _Run, replay: LogReplay, row: Mapping[str, Any]) -> Iterator[str]:
        yield from replay.unlike_row(row, is_early=run.is_early)
        for column, values in self._kind.columns_of(row["summary"]).items():
            if row[column] not in values:
                yield f"the column {column} of run {run.id} is not what its summary says"

    def _check_projects(self) -> Steps[None]:
        """Compares what is counted of projects with what their runs add up to."""
        projects = yield every(project_of, self._kind.sql.project)
        costs, changes = dict((yield fetch(_COSTS))), dict((yield fetch(self._kind.sql.changes)))
        for project in projects:
            name = f"project {project.org}/{project.name}"
            taken, reserved = self._taken[project.id], self._reserved[project.id]
            if project.data_bytes != taken:
                self._problems.append(f"{name} counts {project.data_bytes:,} bytes, its runs {taken:,}")
            if changes.get(project.id, 0) < self._changes[project.id]:
                self._problems.append(
                    f"{name} counts {changes.get(project.id, 0)} changes of its runs, and one has number"
                    f" {self._changes[project.id]}"
                )
            if project.reserved_usd != reserved:
                self._problems.append(
                    f"{name} holds back ${format_usd(project.reserved_usd)}, the requests of its runs"
                    f" ${format_usd(reserved)}"
                )
            # What deleted runs have cost stays spent.
            spent, cost = float(project.spent_usd), costs.get(project.id, 0.0)
            if spent < cost and not isclose(spent, cost):
                self._problems.append(f"{name} has spent ${spent:g}, and its runs cost ${cost:g}")


def _unlike_its_rows(run: _Run, of: Mapping[str, _Sum]) -> Iterator[str]:
    """Where the run's row is not what its rows in other tables add up to."""
    events, steps = of["event"], of["step"]
    if events[:3] != (run.head, 1, run.head):
        yield (
            f"run {run.id} should have events 1 to {run.head}, and has {events.rows}, from {events.low} to"
            f" {events.high}"
        )
    if (steps.low, steps.high) != (1, steps.rows):
        yield f"run {run.id} has {steps.rows} steps, at positions {steps.low} to {steps.high}"
    log = sum(of[table].size for table in ("event", "step", "step_attempt", "kept_outline"))
    # Less is counted of a run that was taken over from a process which had died, and more of a step that is
    # written anew once the run has failed.
    if run.log_bytes > 2 * log:
        yield f"run {run.id} counts {run.log_bytes:,} bytes of events and steps, and has {log:,}"
    if not run.ended:
        if run.is_cleared:
            yield f"run {run.id} is active, but its checkpoints are due for deletion"
        if not of["run_request"].rows and run.trigger_type not in RECORDED:
            yield f"run {run.id} is active, but its request is gone"
        return
    if of["run_request"].rows:
        yield f"run {run.id} has ended, and what was asked of it is still there"
    if run.owner is not None:
        yield f"run {run.id} has ended, and process {run.owner} still has it"
    if not run.is_cleared:
        if of["checkpoint"].rows:
            yield f"run {run.id} has ended, and {of['checkpoint'].rows} of its checkpoints are still there"
        kept = sum(of[table].size for table in ("owed", "run_outcome", "call_answer"))
        if run.open_bytes != kept and not run.is_early:
            yield f"run {run.id} counts {run.open_bytes:,} bytes kept for its callers, and has {kept:,}"


def _unlike_the_queue(run: _Run, queued: _Sum) -> Iterator[str]:
    if run.waits and not queued.rows:
        yield f"run {run.id} waits for a process, and is not in the queue"
    elif queued.rows and not run.waits:
        yield f"run {run.id} is in the queue, and does not wait for a process"
    elif queued.rows and queued.low != run.project_id:
        yield f"run {run.id} is in the queue of another project"


def _bytes_of(run: _Run, sums: _Sums, *tables: str) -> int:
    return sum(sums[table].get(run.no, _NONE).size for table in tables)


def _by_run(rows: Iterable[Sequence[Any]]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for run_no, *row in rows:
        found.setdefault(run_no, []).append(row)
    return found

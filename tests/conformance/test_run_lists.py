"""What every store must find by a query, held against a plain reading of the query language."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from runglass.log.events import FlowFailed, StepCompleted, encode_event
from runglass.log.trace import TERMINAL
from runglass.store.base import Store
from runglass.store.query_index import SearchLimits
from runglass.store.records import ListPosition, RunNumbers, StepRow
from runglass.support.clock import iso_ms
from runglass.wire.query import RunQuery, Term, first_id
from runglass.wire.query_parser import parse_run_query
from tests.conformance.stores import STORES, batch, make_run, run_with, store_kinds

pytestmark = pytest.mark.parametrize("kind", store_kinds("pooler"), scope="module")

PATIENT = SearchLimits(look_s=60.0, count_s=60.0)
"""A store may give up what takes it long; here all is wanted, however busy the machine is."""

NOW = datetime(2025, 11, 20, 12, tzinfo=UTC)
FIRST_MS = round((NOW - timedelta(days=2)).timestamp() * 1000)
RUNS = 80
APART_MS = 2_150_000
SESSIONS = [str(uuid.UUID(int=number, version=4)) for number in range(3)]
WORDS = ["refund", 'the "50%_off" ticket', "Grüße"]


@dataclass(kw_only=True)
class Known:
    """A run as the test made it."""

    id: str
    created_ms: int
    flow: str
    version: int
    status: str
    trigger: str
    session: str | None
    duration_ms: int | None
    cost: Decimal | None
    tokens: int | None
    model: str | None
    error: tuple[str, str] | None
    step: str
    step_ran: bool
    text: str


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the store that most tests only read."""
    return tmp_path_factory.mktemp(kind)


@pytest.fixture
async def store(kind: str, folder: Path) -> AsyncIterator[Store]:
    async with STORES[kind](folder, search=PATIENT) as opened:
        yield opened


@pytest.fixture
async def own_store(kind: str, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty one, to write to."""
    async with STORES[kind](tmp_path, search=PATIENT) as opened:
        yield opened


@pytest.fixture
async def known(store: Store) -> list[Known]:
    return await known_runs(store)


async def known_runs(store: Store) -> list[Known]:
    """The runs of every kind in the project `acme/demo`, newest first, which it gets where it has none."""
    random = Random(7)
    made = [made_up(random, number) for number in range(RUNS)]
    if await store.last_change((await store.ensure_project("acme", "demo")).id) == 0:
        # Appends of one turn of the loop share a commit.
        await asyncio.gather(*(stored(store, run) for run in made))
    return made[::-1]


def made_up(random: Random, number: int) -> Known:
    created_ms = FIRST_MS + number * APART_MS
    status = random.choice([*TERMINAL, "completed", "running", "paused", "pending"])
    ended = status in TERMINAL
    metered = status != "pending" and random.random() < 0.8
    return Known(
        id=str(uuid.UUID(int=uuid.UUID(first_id(created_ms)).int | (7 << 76) | random.getrandbits(62))),
        created_ms=created_ms,
        flow=random.choice(["one", "one", "two", "three"]),
        version=random.randint(0, 4),
        status=status,
        trigger=random.choice(["api", "api", "job", "step"]),
        session=random.choice([*SESSIONS, None]),
        duration_ms=random.choice([0, 842, 3000, 3400, 120_000]) if ended else None,
        cost=Decimal(random.choice(["0", "0.00003", "0.01", "1.5"])) if metered else None,
        tokens=random.choice([0, 999, 1000, 12_000]) if metered else None,
        model=random.choice(["openai:gpt-4o", "openai:gpt-4o-mini", "echo"]) if metered else None,
        error=random.choice([("STEP_TIMEOUT", "took 100% of it"), ("CODE_ERROR", "no field 'text'")])
        if status == "failed"
        else None,
        step=random.choice(["words", "each"]),
        step_ran=random.random() < 0.7,
        text=random.choice([*WORDS, "nothing of the kind"]),
    )


def completed(run_id: str, step_id: str, text: str) -> bytes:
    """The event of a step that has ended with this text."""
    step: dict[str, Any] = {"step_id": step_id, "step_index": 0, "attempt": 1, "duration_ms": 1}
    return encode_event(StepCompleted(execution_id=run_id, **step, output={"text": text}))


async def stored(store: Store, run: Known) -> None:
    about: dict[str, Any] = {"version": run.version, "trigger_type": run.trigger, "session_id": run.session}
    summary = summary_of(run, status="pending")
    created = await make_run(store, run.id, slug=run.flow, summary=summary, **about)
    if run.status == "pending":
        return
    step = StepRow(1, run.step, "", 1, "completed" if run.step_ran else "skipped", b"{}")
    told = [completed(run.id, run.step, f"before {run.text} behind"), b"no JSON"]
    begun = summary_of(run, status="running")
    await store.append(batch(created, 0, *told, steps=[step], summary=begun))
    if run.status == "running":
        return
    error = {"code": "X", "message": "y"}
    last = batch(
        created,
        2,
        encode_event(FlowFailed(execution_id=run.id, run_id=run.id, error=error)),
        status=run.status,
        summary=summary_of(run, status=run.status),
        ended_at=iso_ms(run.created_ms) if run.status in TERMINAL else None,
        numbers=numbers_of(run),
    )
    await store.append(last)


def numbers_of(run: Known) -> RunNumbers:
    if run.duration_ms is None:
        return RunNumbers()
    return RunNumbers(run.duration_ms, None if run.cost is None else float(run.cost), run.tokens)


def summary_of(run: Known, *, status: str) -> bytes:
    totals: dict[str, Any] = {}
    if run.cost is not None and status != "pending":
        totals = {"costUsd": str(run.cost), "tokens": {"total": run.tokens}, "byModel": {run.model: {}}}
    summary: dict[str, Any] = {"id": run.id, "status": status, "totals": totals}
    if status != "pending":
        summary["startedAt"] = iso_ms(run.created_ms)
    if status in TERMINAL:
        summary["durationMs"] = run.duration_ms
    if status == "failed" and run.error is not None:
        summary["error"] = dict(zip(("code", "message"), run.error, strict=True))
    return msgspec.json.encode(summary)


def has_text(run: Known, text: str) -> bool:
    return run.status != "pending" and text.lower() in f"before {run.text} behind".lower()


def long_since(run: Known) -> bool:
    """Whether the run has lasted for more than an hour: those that go on were begun in the past."""
    return run.status in ("running", "paused")


CASES: list[tuple[str, Callable[[Known], bool]]] = [
    ("", lambda run: True),
    ("status:failed", lambda run: run.status == "failed"),
    ("status:failed,cancelled", lambda run: run.status in ("failed", "cancelled")),
    ("-status:completed,failed", lambda run: run.status not in ("completed", "failed")),
    ("status:failed status:completed", lambda run: False),
    ("flow:one", lambda run: run.flow == "one"),
    ("flow:one,two", lambda run: run.flow in ("one", "two")),
    ("-flow:one", lambda run: run.flow != "one"),
    ("flow:one status:failed", lambda run: run.flow == "one" and run.status == "failed"),
    ("version:3", lambda run: run.version == 3),
    ("version:draft,2..3", lambda run: run.version in (0, 2, 3)),
    ("-version:>1 flow:two", lambda run: run.version <= 1 and run.flow == "two"),
    ("trigger:job", lambda run: run.trigger == "job"),
    (
        "trigger:job,step -status:failed flow:one version:>=1",
        lambda run: (
            run.trigger != "api" and run.status != "failed" and run.flow == "one" and run.version >= 1
        ),
    ),
    (f"session:{SESSIONS[0]}", lambda run: run.session == SESSIONS[0]),
    (
        f"session:{SESSIONS[0]},{SESSIONS[1]} -flow:one",
        lambda run: run.session in SESSIONS[:2] and run.flow != "one",
    ),
    (f"-session:{SESSIONS[2]}", lambda run: run.session != SESSIONS[2]),
    ("since:24h", lambda run: run.created_ms >= FIRST_MS + 86_400_000),
    (
        "-until:2025-11-19T12:00 status:completed",
        lambda run: run.created_ms >= FIRST_MS + 86_400_000 and run.status == "completed",
    ),
    (
        "since:30h until:20h trigger:api",
        lambda run: (
            FIRST_MS + 18 * 3_600_000 <= run.created_ms < FIRST_MS + 28 * 3_600_000 and run.trigger == "api"
        ),
    ),
    ("duration:3s..4s", lambda run: run.duration_ms in (3000, 3400)),
    (
        "duration:<=842ms status:completed",
        lambda run: run.status == "completed" and run.duration_ms in (0, 842),
    ),
    ("duration:>1h", long_since),
    ("-duration:>1s", lambda run: not (long_since(run) or (run.duration_ms or 0) > 1000)),
    ("cost:>0.01", lambda run: run.cost is not None and run.cost > Decimal("0.01")),
    ("cost:0.00003", lambda run: run.cost == Decimal("0.00003")),
    ("cost:<1 flow:three", lambda run: run.cost is not None and run.cost < 1 and run.flow == "three"),
    ("tokens:1k..1k,>10k", lambda run: run.tokens in (1000, 12_000)),
    ("-tokens:<1000 status:running", lambda run: run.status == "running" and run.tokens not in (0, 999)),
    ("model:gpt-4o", lambda run: run.model == "openai:gpt-4o"),
    ("model:OpenAI:gpt-4o-mini,echo", lambda run: run.model in ("openai:gpt-4o-mini", "echo")),
    ("-model:echo", lambda run: run.model != "echo"),
    ("error:STEP_TIMEOUT", lambda run: run.error is not None and run.error[0] == "STEP_TIMEOUT"),
    ('error:"no FIELD"', lambda run: run.error is not None and run.error[0] == "CODE_ERROR"),
    ("error:100%", lambda run: run.error is not None and run.error[0] == "STEP_TIMEOUT"),
    ("error:1_0%", lambda run: False),
    ("-error:timeout status:failed", lambda run: run.error is not None and run.error[0] != "STEP_TIMEOUT"),
    ("step:words", lambda run: run.status != "pending" and run.step == "words" and run.step_ran),
    ("-step:words,each", lambda run: run.status == "pending" or not run.step_ran),
    ("refund", lambda run: has_text(run, "refund")),
    ("text:REFUND behind flow:one", lambda run: has_text(run, "refund") and run.flow == "one"),
    (r'"\"50%_off\""', lambda run: has_text(run, '"50%_off"')),
    ("50__off", lambda run: False),
    ("Grüße", lambda run: has_text(run, "Grüße")),
    ("-refund status:completed", lambda run: run.status == "completed" and not has_text(run, "refund")),
    ("before -Grüße", lambda run: has_text(run, "before") and not has_text(run, "Grüße")),
    ("stepId", lambda run: False),
]


async def asked(store: Store, text: str) -> RunQuery:
    """The query, with ids of flows for their slugs."""
    project = await store.ensure_project("acme", "demo")
    ids = {flow.slug: flow.id for flow in await store.flows(project.id)}

    def with_ids(term: Term) -> Term:
        return term._replace(words=tuple(ids[word] for word in term.words)) if term.field == "flow" else term

    return RunQuery(tuple(with_ids(term) for term in parse_run_query(text, now=NOW).terms))


async def all_pages(store: Store, query: RunQuery, *sizes: int) -> list[str]:
    """The runs of all pages, which are of these sizes in turns."""
    project = await store.ensure_project("acme", "demo")
    found: list[str] = []
    position: ListPosition | None = None
    limits = cycle(sizes)
    while True:
        limit = next(limits)
        page = await store.runs(project.id, query, after=position, limit=limit)
        assert len(page.runs) <= limit
        found += [run.id for run in page.runs]
        if page.position is None:
            return found
        assert position is None or page.position != position, "it comes forward"
        position = page.position


def expected(known: list[Known], meets: Callable[[Known], bool]) -> list[str]:
    """Ids of the runs that the test says meet the query."""
    return [run.id for run in known if meets(run)]


async def test_every_query_finds_its_runs_newest_first_in_pages_of_any_size(
    store: Store, known: list[Known]
) -> None:
    matched = 0
    for text, meets in CASES:
        query, wanted = await asked(store, text), expected(known, meets)
        # Pages of one run alone would take a thousand requests.
        assert await all_pages(store, query, 1, 7) == wanted, text
        assert await all_pages(store, query, 200) == wanted, text
        matched += bool(wanted)
    assert matched > len(CASES) * 0.8, "nearly every query has runs to find"


async def test_counts_are_those_of_the_list_in_intervals_of_any_or_of_round_length(
    store: Store, known: list[Known]
) -> None:
    project = await store.ensure_project("acme", "demo")
    until_ms = round(NOW.timestamp() * 1000)
    lengths = (1000, 7_000, 60_000, 3_600_000, 86_400_000)
    for text, meets in CASES:
        wanted, query = set(expected(known, meets)), await asked(store, text)
        for buckets, lengths_ms in ((10, ()), (50, lengths)):
            counts = await store.count_runs(
                project.id, query, until_ms=until_ms, buckets=buckets, lengths_ms=lengths_ms
            )
            assert counts.counted_from_ms is None
            if lengths_ms:
                assert counts.bucket_ms in lengths, text
                assert counts.from_ms % counts.bucket_ms == 0
            assert len(counts.runs) == len(counts.failed) <= buckets
            runs, failed = [0] * len(counts.runs), [0] * len(counts.runs)
            for run in known:
                if run.id in wanted:
                    number = (run.created_ms - counts.from_ms) // counts.bucket_ms
                    runs[number] += 1
                    failed[number] += run.status == "failed"
            assert (counts.runs, counts.failed) == (runs, failed), text


async def test_counted_intervals_cover_the_time_to_its_last_millisecond(own_store: Store) -> None:
    project, query = await own_store.ensure_project("acme", "demo"), await asked(own_store, "")

    async def counted(until_ms: int, *lengths_ms: int) -> tuple[int, int, list[int]]:
        counts = await own_store.count_runs(
            project.id, query, until_ms=until_ms, buckets=3, lengths_ms=lengths_ms
        )
        return counts.from_ms, counts.bucket_ms, counts.runs

    assert await counted(FIRST_MS) == (FIRST_MS, 1, [0, 0, 0])
    assert await counted(FIRST_MS, 5) == (FIRST_MS, 5, [0])
    for created_ms in (FIRST_MS, FIRST_MS + 10):
        await make_run(own_store, first_id(created_ms))
    for lengths_ms, length_ms in (([], 4), ([2], 4), ([2, 5, 10], 5)):
        assert await counted(FIRST_MS + 11, *lengths_ms) == (FIRST_MS, length_ms, [1, 0, 1])


async def test_runs_of_another_project_are_neither_found_nor_counted(
    store: Store, known: list[Known]
) -> None:
    other = await store.ensure_project("acme", "other")
    for text, _ in CASES:
        query = await asked(store, text)
        assert await store.runs(other.id, query, limit=10) == ([], None, 0), text
        counts = await store.count_runs(other.id, query, until_ms=1_000_000, buckets=10)
        assert sum(counts.runs) == 0, text
        assert await store.changed_runs(other.id, query, after=0, limit=10) == [], text


async def test_each_run_is_among_the_changed_ones_once_with_its_newest_change(own_store: Store) -> None:
    store, known = own_store, await known_runs(own_store)
    project = await store.ensure_project("acme", "demo")
    changed = await store.changed_runs(project.id, RunQuery(), after=0, limit=1000)
    assert sorted(each.run_id for each in changed) == sorted(run.id for run in known)
    numbers = [each.number for each in changed]
    assert numbers == sorted(set(numbers))
    last = (await store.runs(project.id, RunQuery(), limit=1)).last_change
    assert numbers[-1] == last
    assert await store.changed_runs(project.id, RunQuery(), after=last, limit=10) == []
    assert (await store.changed_runs(project.id, RunQuery(), after=numbers[3], limit=2)) == changed[4:6]
    await stored(store, new := made_up(Random(1), RUNS))
    after = await store.changed_runs(project.id, RunQuery(), after=last, limit=10)
    assert [each.run_id for each in after] == [new.id]
    assert after[0].number == last + {"pending": 1, "running": 2}.get(new.status, 3)


async def test_a_change_says_whether_the_run_meets_the_query_or_may_have_met_it(
    store: Store, known: list[Known]
) -> None:
    project = await store.ensure_project("acme", "demo")
    for text, meets in CASES:
        query, wanted = await asked(store, text), set(expected(known, meets))
        changed = await store.changed_runs(project.id, query, after=0, limit=1000)
        assert {each.run_id for each in changed if each.listing is not None} == wanted, text
        assert all(each.could_meet for each in changed if each.listing is not None)
    changed = await store.changed_runs(
        project.id, await asked(store, "flow:one status:failed"), after=0, limit=1000
    )
    of_flow = expected(known, lambda run: run.flow == "one")
    assert sorted(each.run_id for each in changed if each.could_meet) == sorted(of_flow)


async def test_an_append_that_leaves_the_status_is_no_change_and_no_number_is_given_again(
    own_store: Store,
) -> None:
    run = await make_run(own_store, first_id(1))
    seen = []
    for head, status in enumerate(["running", "running", "paused", "paused", "running"]):
        await own_store.append(batch(run, head, b"{}", status=status))
        changed = await own_store.changed_runs(run.project_id, RunQuery(), after=0, limit=9)
        seen += [each.number for each in changed]
    assert seen == [2, 2, 3, 3, 4]
    await own_store.append(batch(run, 5, b"{}", status="failed"))
    assert await own_store.purge_runs([run.no])
    await make_run(own_store, first_id(2))
    (change,) = await own_store.changed_runs(run.project_id, RunQuery(), after=0, limit=9)
    assert change.number == 6, "also where the run of the last one is gone"


async def test_the_message_of_an_error_is_found_until_it_is_taken_out(own_store: Store) -> None:
    store = own_store
    newest, oldest = first_id(2), first_id(1)
    runs = [await make_run(store, run_id) for run_id in (newest, oldest)]
    summary = b'{"error":{"code":"CODE_ERROR","message":"no Sesame"}}'
    for run in runs:
        await store.append(batch(run, 0, b"{}", status="failed", summary=summary))
    numbers = [run.no for run in runs]

    async def found(text: str) -> list[str]:
        return await all_pages(store, await asked(store, text), 1)

    async def told() -> str:
        rows: list[str] = []
        await store.raw_rows(newest, lambda table, row: rows.append(f"{table} {row}".lower()))
        return "".join(rows)

    assert await found("error:sesame") == [newest, oldest]
    assert "run_error {" in await told()
    assert await store.strip_content(numbers[:1], None, limit_rows=99, limit_bytes=1 << 20) == (1, None)
    assert await found("error:sesame") == await found("-error:nothing error:sesame") == [oldest]
    assert await found("error:code_error") == [newest, oldest]
    assert "sesame" not in (rows := await told())
    assert "run_error {" in rows
    # A row that was left of it would take the place of the other run in the first page.
    assert await store.purge_runs(numbers[:1])
    page = await store.runs(runs[0].project_id, await asked(store, "error:code_error"), limit=1)
    assert ([each.id for each in page.runs], page.position) == ([oldest], None)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(SearchLimits(look_s=0.0), id="each-page-is-one-piece"),
        pytest.param(SearchLimits(look_s=0.0, first_rows=0), id="pieces-of-a-row-or-two"),
        pytest.param(SearchLimits(look_s=60.0, first_rows=0), id="pages-of-such-pieces"),
        pytest.param(SearchLimits(most_groups=0), id="too-many-groups"),
    ],
)
async def test_the_same_runs_are_found_whatever_the_limits(
    kind: str, folder: Path, known: list[Known], limits: SearchLimits
) -> None:
    async with STORES[kind](folder, search=limits) as store:
        for text, meets in CASES:
            found = await all_pages(store, await asked(store, text), 20)
            assert found == expected(known, meets), text


async def test_what_is_not_counted_in_time_is_said(kind: str, folder: Path, known: list[Known]) -> None:
    until_ms = round(NOW.timestamp() * 1000)
    async with STORES[kind](folder, search=SearchLimits(count_s=0.0, first_rows=30)) as store:
        # The other one is of several parts of an index, of which as much is counted as of one.
        for text, buckets in (("duration:>=0s", 10), ("status:completed,failed duration:>=0s", 1)):
            query = await asked(store, text)
            counts = await store.count_runs(1, query, until_ms=until_ms, buckets=buckets)
            assert counts.counted_from_ms is not None
            ids = set(await all_pages(store, query, 200))
            counted = [run for run in known if run.id in ids and run.created_ms >= counts.counted_from_ms]
            assert 0 < sum(counts.runs) == len(counted) < len(ids)
            assert sum(counts.failed) == len([run for run in counted if run.status == "failed"])


async def test_a_log_that_takes_too_long_is_gone_on_with_where_the_page_before_ended(
    kind: str, tmp_path: Path
) -> None:
    async with STORES[kind](tmp_path, search=SearchLimits(look_s=0.0)) as store:
        runs = [await make_run(store, first_id(number)) for number in (1, 2)]
        for number, run in enumerate(runs, 1):
            words = ["early", *[f"filler {number}"] * 250, "late"]
            await store.append(batch(run, 0, *(completed(run.id, "s", word) for word in words)))
        both = [first_id(2), first_id(1)]
        for text, wanted in (
            ("early late", both),
            ("late early", both),
            ('"filler 1" late', both[1:]),
            ('late -"filler 1"', both[:1]),
            ("late -early", []),
            ("never", []),
        ):
            assert await all_pages(store, await asked(store, text), 1) == wanted, text
        page = await store.runs(runs[0].project_id, await asked(store, "late"), limit=1)
        assert page.runs == []
        assert page.position is not None
        assert page.position.run_id == first_id(2)
        assert 0 < page.position.seq < 252


async def test_of_another_projects_session_nothing_is_told(kind: str, tmp_path: Path) -> None:
    session = "5e551011-0000-4000-8000-000000000000"
    query = RunQuery((Term("session", (session,)), Term("model", ("echo",), negated=True)))
    async with STORES[kind](tmp_path, search=SearchLimits(look_s=0.0, first_rows=0)) as store:
        own = await store.ensure_project("acme", "own")
        of_other = {"project": "other", "session_id": session}
        other, *_ = [await make_run(store, first_id(number), **of_other) for number in range(1, 6)]
        found = await store.runs(own.id, query, limit=1)
        assert (found.runs, found.position) == ([], None)
        counts = await store.count_runs(own.id, query, until_ms=1000, buckets=10)
        assert counts.from_ms == 1000
        assert len((await store.runs(other.project_id, query, limit=9)).runs) == 5
        assert (await store.count_runs(other.project_id, query, until_ms=1000, buckets=10)).from_ms == 1


@pytest.mark.parametrize("letters", [10, 60, 64, 65, 300])
async def test_a_text_of_any_length_is_found_where_it_stands_alone(own_store: Store, letters: int) -> None:
    there, content = 'Ä"' + "aB" * letters, 'Ä"' + "Ab" * letters
    event = msgspec.json.encode({"stepId": content[:-1] + "c", "output": {"x": [content]}})
    run = await run_with(own_store, event, run_id=first_id(1))
    for text, is_there in ((there, True), (there + "c", False), (there[:-1] + "c", False)):
        query = RunQuery((Term("text", (text,)),))
        found = await own_store.runs(run.project_id, query, limit=1)
        assert bool(found.runs) == is_there, text

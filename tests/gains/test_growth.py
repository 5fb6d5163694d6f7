"""What callers can make large takes time that grows with its size, and no faster."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runglass.cli.terminal.outline_rows import choose_rows, tree_lines
from runglass.cli.terminal.run_progress import RunProgress
from runglass.config.settings import Settings
from runglass.engine.capture.snapshots import cut
from runglass.engine.workers.sandbox import Sandbox
from runglass.engine.workers.templates import make_plan
from runglass.errors import StepFailure
from runglass.flows.parser import check_flow
from runglass.flows.references import unmet_references
from runglass.flows.schemas.defaults import fill_defaults
from runglass.log.events import StepCompleted, StepStarted
from runglass.redact import Redactor
from runglass.store.postgres.store import PostgresStore
from runglass.store.query_index import Look, SearchedTexts, SearchLimits
from runglass.store.records import Checkpoint, ListPosition
from runglass.store.sqlite.sql_helpers import SEARCH_SQL, perform
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.query import RunQuery, Term, first_id
from runglass.wire.sse import Decoder, frame
from tests.conformance.stores import STORES, batch, make_run
from tests.gains.timing import LINEAR, growth, seconds
from tests.postgres_server import connected, postgres_database
from tests.unit.cli.test_run_overview import grid
from tests.unit.test_flow_references import llm, step

code = partial(step, code="return 1")


@pytest.mark.parametrize(
    ("begin", "unit", "chunk_bytes"),
    [
        pytest.param(b"data: ", b"x", 4096, id="one line in chunks"),
        pytest.param(b"", b"data: x\n", 4096, id="many lines in chunks"),
        pytest.param(b"", b"data: x\r\n", 4096, id="many CRLF lines in chunks"),
        pytest.param(b"", b"data: x\n", 1 << 30, id="many lines at once"),
        pytest.param(b"", frame(1, "e", b"{}"), 4096, id="many frames in chunks"),
    ],
)
def test_decoding_a_stream(begin: bytes, unit: bytes, chunk_bytes: int) -> None:
    def made(size: int) -> Callable[[], object]:
        stream = begin + unit * (size // len(unit)) + b"\n\n"
        chunks = [stream[at : at + chunk_bytes] for at in range(0, len(stream), chunk_bytes)]

        def decode() -> None:
            decoder = Decoder()
            assert sum(len(decoder.feed(chunk)) for chunk in chunks)

        return decode

    assert growth(made, 256 << 10) < LINEAR


@pytest.mark.parametrize(
    ("opening", "piece"), [("", "{{"), ("{{ a", ".b"), ("", "{{ '"), ("{{", " "), ("", "{{ a['"), ("", "{%")]
)
def test_reading_a_template(opening: str, piece: str) -> None:
    assert growth(lambda pieces: lambda: make_plan(opening + piece * pieces), 5_000) < LINEAR


@pytest.mark.parametrize(
    "made",
    [
        lambda size: {"text": "x" * 100 * size, "b": 1},
        lambda size: {"text": "\0" * 20 * size},
        lambda size: {"k" * 20 * size: 1},
        lambda size: {f"k{n}": n for n in range(size)},
        lambda size: {"rows": [{"id": n, "tags": ["a", "b"]} for n in range(size)]},
        lambda size: {f"k{n}": {f"j{m}": "v" for m in range(500)} for n in range(size // 500)},
    ],
    ids=["text", "escapes", "key", "keys", "rows", "wide"],
)
@pytest.mark.parametrize("limit", [256, 262_144])
def test_cutting_a_value_takes_time_by_the_limit_alone(
    made: Callable[[int], dict[str, Any]], limit: int
) -> None:
    assert growth(lambda size: partial(cut, made(size), limit), 40_000) < 3


def test_filling_in_defaults_by_a_large_schema() -> None:
    def made(size: int) -> Callable[[], object]:
        names = {f"p{number}": {"properties": {"x": {"default": 1}}} for number in range(size)}
        schema = {"properties": {"rows": {"items": {"properties": names}}}}
        value: dict[str, Any] = {"rows": [{} for _ in range(30 * size)]}
        return lambda: fill_defaults(value, schema)

    assert growth(made, 300) < LINEAR


def test_filling_in_defaults_by_many_references_to_one_large_schema() -> None:
    def made(size: int) -> Callable[[], object]:
        large = {"properties": {f"p{number}": {"default": 1} for number in range(size)}}
        names: dict[str, Any] = {f"r{number}": {"$ref": "#/$defs/large"} for number in range(size)}
        schema = {"properties": names, "$defs": {"large": large}}
        return lambda: fill_defaults({}, schema)

    assert growth(made, 2_000) < LINEAR


@pytest.mark.parametrize(
    "made",
    [
        lambda size: [code("before"), llm("use", "{{ steps.before.text }}" * size)],
        lambda size: [
            code(f"s{number}", input={"a": "{{ steps.s1x }} {{ steps.s2x }}"}) for number in range(size)
        ],
        lambda size: [
            *(code(f"s{number}") for number in range(size)),
            llm("use", "".join(f"{{{{ s{number} }}}}\n" for number in range(size))),
        ],
    ],
    ids=["many references", "many wrong references", "many steps that are named"],
)
def test_judging_references_to_steps(made: Callable[[int], list[dict[str, Any]]]) -> None:
    def judging(size: int) -> Callable[[], object]:
        flow = {"slug": "a", "steps": made(size)}
        return lambda: list(unmet_references(flow))

    assert growth(judging, 300) < LINEAR


def test_judging_a_schema_full_of_unknown_keywords() -> None:
    def made(size: int) -> Callable[[], object]:
        wrong = ", ".join(f"zzz{number}: 1" for number in range(size))
        text = f"slug: a\ninputs: {{{wrong}}}\nsteps: [{{id: a, type: passthrough}}]\n"
        return lambda: check_flow(text)

    assert growth(made, 250) < LINEAR


def test_showing_the_progress_of_a_run() -> None:
    def made(size: int) -> Callable[[], object]:
        at: dict[str, Any] = {"execution_id": "r", "step_id": "look", "step_index": 0, "attempt": 1}
        at["at"] = "2026-01-01T00:00:00.000Z"

        def show() -> None:
            progress = RunProgress()
            for number in range(size):
                path: dict[str, Any] = {"loop_path": (number,), "loop_index": number}
                progress.add(StepStarted(**at, **path))
                progress.add(StepCompleted(**at, **path, duration_ms=1))
            assert progress.lines(now=datetime(2026, 1, 1, tzinfo=UTC), width=80)

        return show

    assert growth(made, 500) < LINEAR


def test_folding_the_tree_of_a_run() -> None:
    def made(size: int) -> Callable[[], object]:
        rows = grid(size, 50)
        return lambda: list(tree_lines(rows, choose_rows(rows, most=60)))

    assert growth(made, 50) < LINEAR


def test_a_users_pattern_that_never_ends_is_soon_given_up() -> None:
    """Fifty such texts take little longer than the first three, each of which has its whole time."""
    values = {"k": ["a" * 60 + "!" + "x" * 4000 + str(number) for number in range(50)]}

    def redact(value: dict[str, list[str]]) -> float:
        return seconds(lambda: Redactor(extra_patterns=[r"(a|a)+!?$"]).redact(value))

    assert redact(values) < 3 * redact({"k": values["k"][:3]})


def test_a_text_that_almost_stands_everywhere_is_looked_for_about_as_fast_as_another(tmp_path: Path) -> None:
    async def found_in(content: bytes) -> float:
        query = RunQuery((Term("text", ("a" * 1900 + "b",)),))

        def search(db: sqlite3.Connection) -> float:
            look = Look(SearchLimits(), 60.0)
            texts = SearchedTexts(query, SEARCH_SQL)
            return seconds(lambda: perform(lambda: texts.meets(1, ListPosition(""), look), db))

        async with SqliteStore(tmp_path / content[:1].decode()) as store:
            run = await make_run(store, first_id(1))
            await store.append(batch(run, 0, b'{"output":"%b"}' % (content * 250_000)))
            return await store.connections.read(search)

    assert asyncio.run(found_in(b"a")) < 10 * max(asyncio.run(found_in(b"c")), 0.001)


async def test_what_is_printed_to_two_streams_in_turn_calls_nothing_of_this_process() -> None:
    """Each piece was a call of Python here, which took this process for itself as long as the code ran."""
    code = "import sys\nwhile True:\n    print('a', end='')\n    print('b', end='', file=sys.stderr)"
    async with Sandbox(Settings(code_time_limit_ms=2_000)) as sandbox:
        await sandbox.run("return 1", {})
        began, own_began = time.perf_counter(), time.process_time()
        with pytest.raises(StepFailure, match="printed bytes"):
            await sandbox.run(code, {})
        assert time.process_time() - own_began < 0.5 * (time.perf_counter() - began)


async def fastest_s(works: Iterable[Callable[[], Any]]) -> float:
    """The wall-clock time of the quickest: the work is done in other threads and processes."""
    times = []
    for work in works:
        began = time.perf_counter()
        await work()
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_small_row_is_not_found_more_slowly_beside_large_ones(kind: str, tmp_path: Path) -> None:
    """A run may hold megabytes; whoever writes beside it must not read them."""
    async with STORES[kind](tmp_path) as store:
        first, small, last = [await make_run(store, f"run-{number}") for number in range(3)]
        small_row, megabytes = Checkpoint("s", "", b"1"), b"x" * 9_000_000

        def appends(head: int) -> Iterable[Callable[[], Any]]:
            for seq in range(head + 1, head + 21):
                kept: dict[str, Any] = {"checkpoints": [small_row], "owed": [(seq, b"1")]}
                yield partial(store.append, batch(small, seq - 1, b"e", **kept))

        quiet_s = await fastest_s(appends(0))
        for run in (first, last):
            large = Checkpoint("s", "", megabytes)
            await store.append(batch(run, 0, b"e", checkpoints=[large], owed=[(1, megabytes)]))
        assert await fastest_s(appends(20)) < quiet_s + 0.003


@pytest.mark.parametrize("most_each", [None, 1000])
async def test_fifty_thousand_runs_of_one_project_do_not_keep_another_waiting(most_each: int | None) -> None:
    many = 50_000
    with postgres_database() as address:
        async with PostgresStore(address) as store:
            await store.hold_lease("me", until="2999-01-01", renew=False)

            async def turn_s(name: str) -> float:
                """What it takes until another project's run is claimed."""
                began = time.perf_counter()
                other = (await make_run(store, name, project=name)).project_id
                claimed = await store.claim_runs("me", now="2026-01-01", limit=2, most_each=most_each)
                assert name in {run.id for run in claimed}
                assert (await store.queued_runs(other, most=100_000)).projects <= 1
                return time.perf_counter() - began

            quiet_s = min([await turn_s(f"quiet-{number}") for number in range(3)])
            await make_run(store, "flood", project="flood")
            async with connected(address) as connection:
                for statement in (
                    "ALTER TABLE queue DISABLE TRIGGER queue_places",
                    "CREATE TEMPORARY TABLE new AS SELECT no + number AS no, id || number AS id, project_id,"
                    " flow_id, version, status, trigger_type, capture, summary, change_no"
                    f" FROM run, generate_series(1, {many}) AS number WHERE id = 'flood'",
                    "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture,"
                    " summary, change_no) SELECT * FROM new",
                    "INSERT INTO queue (run_no, project_id, pick)"
                    " SELECT no, project_id, 1 + row_number() OVER (ORDER BY no) FROM new",
                    "ALTER TABLE queue ENABLE TRIGGER queue_places",
                    "UPDATE project_change SET last_pick = 1 + (SELECT max(pick) FROM queue)",
                    f"SELECT setval('run_number', {many} + 100)",
                ):
                    await connection.execute(statement)
            assert len(await store.claim_runs("me", now="2026-01-01", limit=100, most_each=most_each)) == 100
            assert await turn_s("other") < 10 * max(quiet_s, 0.01)

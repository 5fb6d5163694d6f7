"""Each law of `tests/laws` is broken once, and says so by its name: one that cannot fail proves nothing."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from runglass.log.events import FlowCompleted, RunInput, encode_event
from runglass.store.sqlite.store import SqliteStore
from tests.laws import law, log, stored
from tests.laws.log import Log
from tests.recorded_spans import AT, Recording, span
from tests.records import there
from tests.reference_fold import JsonObject, reference_attempts, reference_trace
from tests.unit.engine.conftest import open_harness
from tests.unit.engine.fake_models import FakeModels

FLOW = """
- id: again
  type: code
  retry: {max_attempts: 2, initial_delay_ms: 0}
  code: 'return {"n": 1 / (attempt - 1)}'
- {id: each, type: loop, over: '[1, 2]', steps: [{id: inner, type: passthrough}]}
"""
ASKS = "- {id: ask, type: llm, model: 'local:tiny', prompt: Hi}"


async def fill(path: Path) -> bytes:
    """The file of a store with a run that has ended, and one that waits for a model, on a budget."""
    silent = FakeModels()
    async with open_harness(path, models=silent) as house:
        await house.set_budget(3)
        await (await house.start(FLOW)).outcome()
        await house.start(ASKS)
        await silent.asked.wait()
        content: bytes = await house.store.connections.read(lambda db: db.serialize())
        return content


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return asyncio.run(fill(tmp_path_factory.mktemp("filled") / "db"))


@pytest.fixture
def database(content: bytes, tmp_path: Path) -> Path:
    """A sound database, in which nothing goes on."""
    return laid_out(content, tmp_path)


def laid_out(content: bytes, folder: Path) -> Path:
    path = folder / "laid-out"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def spoil(path: Path, *statements: str) -> None:
    """Changes the file as no store would."""
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount > 0, statement
        db.commit()


async def runs_of(store: SqliteStore) -> list[str]:
    """The ids of the runs: first of the one that has ended."""
    return [*await stored.listed_runs(store, there(await store.find_project("acme", "demo")))]


async def broken(path: Path) -> set[str]:
    """The laws that are broken in the database."""
    async with SqliteStore(path) as store:
        return {lie.law for lie in await stored.broken_in(store, "acme", "demo")}


ENDED, GOING = "WHERE status = 'completed'", "WHERE status = 'running'"
OF_ENDED, OF_GOING = (f"WHERE run_no = (SELECT no FROM run {which})" for which in (ENDED, GOING))
AFTER_EACH_APPEND = {
    "the row of a run is at the last event of its log": f"UPDATE run SET head = head + 1 {GOING}",
    "the status in a run's row is that of its log": f"UPDATE run SET status = 'paused' {GOING}",
    "the summary in a run's row is the fold of its log, byte for byte": (
        f"UPDATE run SET summary = CAST(replace(summary, '{{\"id\"', '{{ \"id\"') AS blob) {GOING}"
    ),
    "the row of a run says of it what its first event says": f"UPDATE run SET version = 7 {ENDED}",
    "the stored steps are the fold of the log, byte for byte": (
        "UPDATE step SET data = CAST(replace(data, '{\"stepId\"', '{ \"stepId\"') AS blob)"
    ),
}
OF_ALL = {
    "every attempt is kept as its events tell it": f"UPDATE step_attempt SET status = 'lost' {OF_ENDED}",
    "the trace with the run's input and result is the fold of the log": (
        f"UPDATE run SET capture = 'off' {ENDED}"
    ),
    "a run has what it needs to go on until it ends, and not longer": (
        "INSERT INTO checkpoint (run_no, step_id, loop_path, seq, data)"
        f" SELECT no, 'again', '', 1, x'7b7d' FROM run {ENDED}"
    ),
    "a run can be found by its end, its length and what it cost": f"UPDATE run SET tokens = 5 {ENDED}",
    "the last event of a run that ends well has its totals": (
        "UPDATE event SET data = CAST(replace(data, '\"completed\":3', '\"completed\":4') AS blob)"
        f" {OF_ENDED} AND seq = (SELECT head FROM run {ENDED})"
    ),
    "a project has spent what its runs cost": "UPDATE project SET spent_usd = '0.1'",
    "a project holds back what the open requests of its runs reserve": (
        "UPDATE project SET reserved_usd = '2'"
    ),
    "a project takes as many bytes as its runs": "UPDATE project SET data_bytes = data_bytes + 1",
    "who follows the list of runs hears of every run": f"UPDATE run SET change_no = 0 {ENDED}",
}


async def test_a_sound_store_breaks_no_law(database: Path) -> None:
    assert await broken(database) == set()


@pytest.mark.parametrize(("name", "statement"), AFTER_EACH_APPEND.items())
async def test_a_wrong_row_is_seen_after_each_append(database: Path, name: str, statement: str) -> None:
    spoil(database, statement)
    found = set()
    async with SqliteStore(database) as store:
        for run_id in await runs_of(store):
            run, of_run = await stored.read_run(store, run_id), Log(run_id)
            found |= {lie.law for seq, data in run.events for lie in of_run.add(seq, data)}
            found |= {lie.law for lie in stored.broken_by(of_run, run)}
    assert found == {name}
    assert name in await broken(database)


@pytest.mark.parametrize(("name", "statement"), OF_ALL.items())
async def test_a_store_with_wrong_rows_breaks_one_law(database: Path, name: str, statement: str) -> None:
    spoil(database, statement)
    assert await broken(database) == {name}


ELSEWHERE = {
    f"DELETE FROM step {OF_ENDED} AND position = (SELECT max(position) FROM step)": {
        "the stored steps are the fold of the log, byte for byte",
        "every attempt is kept as its events tell it",
    },
    "DELETE FROM run_request": {"a run has what it needs to go on until it ends, and not longer"},
    f"UPDATE run SET ended_at = '2020' {ENDED}": {
        "a run can be found by its end, its length and what it cost"
    },
}


@pytest.mark.parametrize(("statement", "names"), ELSEWHERE.items())
async def test_laws_are_also_broken_by_rows_that_are_missing_or_wrong_elsewhere(
    database: Path, statement: str, names: set[str]
) -> None:
    spoil(database, statement)
    assert await broken(database) >= names


CHANGED = "events that were read once never change"
LISTED = "the list of runs has every run as its row has it"
SPECIFIED = "the trace is what the specification makes of the log"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE event SET data = CAST(replace(data, '{{', '{{ ') AS blob) {OF_GOING} AND seq = 1",
        f"DELETE FROM event {OF_GOING} AND seq = (SELECT head FROM run {GOING})",
    ],
)
async def test_an_event_that_changes_once_it_was_read_is_seen(database: Path, statement: str) -> None:
    async with SqliteStore(database) as store:
        _, run_id = await runs_of(store)
        before = await stored.kept_run(store, run_id)
    spoil(database, statement)
    async with SqliteStore(database) as store:
        lies = stored.broken_as_a_whole(before, await stored.read_whole(store, run_id))
        assert {lie.law for lie in lies} == {CHANGED}


async def test_a_run_that_is_missing_in_the_list_is_seen(database: Path) -> None:
    async with SqliteStore(database) as store:
        project = there(await store.find_project("acme", "demo"))
        logs = {run_id: await stored.kept_run(store, run_id) for run_id in await runs_of(store)}
        await store.ensure_project("acme", "other")
    spoil(database, f"UPDATE run SET project_id = project_id + 1 {ENDED}")
    async with SqliteStore(database) as store:
        lies = await stored.broken_in_project(store, project, logs)
        assert LISTED in {lie.law for lie in lies}


async def test_a_fold_that_adds_up_wrongly_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are what the fold makes of the log, and the specification makes something else of it."""
    monkeypatch.setattr("runglass.log.fold.milliseconds_between", lambda *_: 7)
    content = await fill(tmp_path / "db")
    assert await broken(laid_out(content, tmp_path)) == {SPECIFIED}


async def test_an_earlier_attempt_that_is_not_kept_is_seen(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteStore(database) as store:
        kept = await stored.kept_run(store, (await runs_of(store))[0])
    monkeypatch.setattr(Log, "attempt_rows", kept.step_rows)
    assert {lie.law for lie in stored.broken_by_itself(kept)} == {SPECIFIED}


@pytest.fixture
async def events(database: Path) -> list[JsonObject]:
    """Those of the run that has ended."""
    async with SqliteStore(database) as store:
        run_id, _ = await runs_of(store)
        return [json.loads(data) for data in (await stored.kept_run(store, run_id)).events]


def at(events: list[JsonObject], kind: str) -> int:
    """Where the first event of this type is."""
    return next(index for index, event in enumerate(events) if event["eventType"] == kind)


def renumbered(events: list[JsonObject]) -> list[JsonObject]:
    return [{**event, "seq": seq} for seq, event in enumerate(events, 1)]


def without(events: list[JsonObject], kind: str) -> list[JsonObject]:
    index = at(events, kind)
    return renumbered(events[:index] + events[index + 1 :])


def with_one_more(events: list[JsonObject], kind: str, to: int | None = None) -> list[JsonObject]:
    """The first event of a type stands once more, right behind itself or else before `to`."""
    index = at(events, kind)
    to = index + 1 if to is None else to
    return renumbered([*events[:to], {**events[index], "at": events[to - 1]["at"]}, *events[to:]])


def changed(events: list[JsonObject], kind: str, **fields: object) -> list[JsonObject]:
    index = at(events, kind)
    return [*events[:index], {**events[index], **fields}, *events[index + 1 :]]


LOGS: dict[str, Callable[[list[JsonObject]], list[JsonObject]]] = {
    log.NUMBERS: lambda events: changed(events, "step_input", seq=99),
    log.FIRST: lambda events: with_one_more(events, "run_started", to=at(events, "loop_started")),
    log.LAST: lambda events: with_one_more(events, "run_input", to=len(events)),
    log.DATES: lambda events: changed(events, "loop_started", at="2020-01-01T00:00:00.000Z"),
    log.LATE_INPUT: lambda events: with_one_more(events, "run_input", to=at(events, "loop_started")),
    log.ONCE: lambda events: with_one_more(events, "loop_completed"),
    log.ATTEMPTS: lambda events: changed(events, "step_retrying", nextAttempt=3),
    log.WITHIN: lambda events: changed(events, "step_input", attempt=5),
    log.RUNNING: lambda events: without(events, "step_completed"),
}


@pytest.mark.parametrize(("name", "spoiled"), LOGS.items())
def test_a_log_in_disorder_breaks_one_law(
    events: list[JsonObject], name: str, spoiled: Callable[[list[JsonObject]], list[JsonObject]]
) -> None:
    assert laws_of(events) == set()
    assert laws_of(spoiled(events)) == {name}


def test_laws_are_also_broken_by_what_is_missing_in_a_log_or_of_another_run(events: list[JsonObject]) -> None:
    assert laws_of(changed(events, "step_input", executionId="other")) == {log.NUMBERS}
    assert laws_of(without(events, "loop_started")) == {log.ONCE}
    assert laws_of(without(events, "step_retrying")) == {log.ATTEMPTS}
    assert laws_of(changed(events, "step_started", attempt=2)) == {log.ATTEMPTS, log.WITHIN}
    begun_again = with_one_more(events, "step_started", to=at(events, "loop_started"))
    assert laws_of(begun_again) == {log.ONCE, log.ATTEMPTS, log.RUNNING}


def test_an_attempt_that_ends_well_after_it_was_cut_off_is_seen(events: list[JsonObject]) -> None:
    assert laws_of(events, cut_off_before=at(events, "step_completed")) == {log.TOLD_LOST}


def test_a_span_with_another_address_is_seen() -> None:
    recording = Recording([span(1), span(2), span(1, user="ann")])
    recording.add(RunInput(execution_id="r", at=AT, inputs={"text": "hi"}))
    recording.add(FlowCompleted(execution_id="r", at=AT, run_id="r"))
    events: list[JsonObject] = [json.loads(encode_event(event)) for event in recording.events]
    assert laws_of(events) == set()
    of_another = [*events[:2], events[2] | {"stepId": events[1]["stepId"]}, *events[3:]]
    moved = [*events[:3], events[3] | {"stepId": "other"}, *events[4:]]
    assert laws_of(of_another) == laws_of(moved) == {log.SPANS}


def laws_of(events: list[JsonObject], *, cut_off_before: int = -1) -> set[str]:
    of_run, found = Log(events[0]["executionId"]), set()
    for index, event in enumerate(events):
        if index == cut_off_before:
            of_run.cut_off()
        found |= {lie.law for lie in of_run.add(index + 1, json.dumps(event).encode())}
    return found


TOLD: dict[str, Callable[[stored.Told], object]] = {
    "the trace that is sent is the fold of the stream": lambda run: run.trace["steps"].pop(),
    "the list of runs tells what the trace tells": lambda run: (
        run.listed.pop("status") if run.listed else None
    ),
    "all attempts of a step are told, by iteration, then by number": (
        lambda run: run.attempts["again"]["attempts"].reverse()
    ),
}


@pytest.mark.parametrize(("name", "spoil_it"), TOLD.items())
def test_a_reader_who_is_told_something_else_breaks_one_law(
    events: list[JsonObject], name: str, spoil_it: Callable[[stored.Told], object]
) -> None:
    trace = reference_trace(events)
    run = {key: value for key, value in trace["flowRun"].items() if key not in ("input", "result")}
    attempts = {"again": reference_attempts("again", events)}
    reader = stored.Told(run["id"], events, trace, listed=run, attempts=attempts)
    assert [*stored.broken_by_readers(reader)] == []
    spoil_it(reader)
    assert {lie.law for lie in stored.broken_by_readers(reader)} == {name}


def test_whoever_requires_that_nothing_is_broken_is_told_what_is() -> None:
    law.require([])
    with pytest.raises(AssertionError, match="of a run: 1 lies\na lie\nthe server said:\nno"):
        law.require(["a lie"], "of a run", "no")


def test_every_law_is_broken_here_once() -> None:
    names = {*AFTER_EACH_APPEND, *OF_ALL, CHANGED, LISTED, SPECIFIED, *LOGS, log.SPANS, log.TOLD_LOST, *TOLD}
    assert names == set(law.LAWS)

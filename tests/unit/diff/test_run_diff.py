"""Two runs beside each other: which rows differ, and in which order of the flow they stand."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.diff.alignment import FlowOrder, StepLocation, align, step_locations, without_unread
from runglass.diff.attempt_diff import DiffAllowance, compose, row_of
from runglass.diff.digest import StoredAttempt, read_attempt, read_digest
from runglass.diff.run_diff import RunDiff
from runglass.flows.parser import parse_flow
from runglass.log.trace import RunSummary
from runglass.server.services.outlines import flow_nodes

JsonObject = dict[str, Any]

ORDER = FlowOrder(
    [StepLocation("a"), StepLocation("loop"), StepLocation("b", ("loop",)), StepLocation("c", ("loop",))]
)
ADDRESSES = [
    *((step, (), 1) for step in "a"),
    ("a", (), 2),
    *((step, (index,), 1) for index in range(2) for step in "bc"),
]
SNAPSHOTS = st.sampled_from(
    [None, {}, {"n": 1}, {"n": True}, {"n": 1.0}, {"text": "gut"}, {"x": [1, 2], "y": 0}]
)
ATTEMPTS = st.fixed_dictionaries(
    {"status": st.sampled_from(["completed", "failed"])},
    optional={
        "modelUsed": st.sampled_from(["echo", "small"]),
        "finishReason": st.sampled_from(["stop", "length"]),
        "tokens": st.sampled_from([{"prompt": 1, "completion": n, "total": 1 + n} for n in range(2)]),
        "costUsd": st.sampled_from(["0.1", "0"]),
        "durationMs": st.integers(0, 3),
        "inputSizeBytes": st.integers(1, 2),
        "outputSizeBytes": st.integers(1, 2),
        "inputContext": SNAPSHOTS,
        "outputContext": SNAPSHOTS,
        "modelCalls": st.lists(
            st.fixed_dictionaries(
                {"number": st.integers(1, 9), "model": st.sampled_from(["m", "n"])},
                optional={
                    "startedAt": st.sampled_from(["now", "then"]),
                    "finishReason": st.sampled_from(["stop", "length"]),
                    "errorCode": st.just("TIMEOUT"),
                    "request": st.sampled_from([{"system": "a"}, {"system": "b"}]),
                    "response": st.sampled_from([{"content": "x"}, {"content": "y"}]),
                },
            ),
            max_size=2,
        ),
        "errorContext": st.sampled_from([{"code": "TIMEOUT"}, {"code": "TIMEOUT", "message": "late"}]),
    },
)
RUNS = st.dictionaries(st.sampled_from(ADDRESSES), ATTEMPTS)
Run = dict[tuple[str, tuple[int, ...], int], JsonObject]

SCALARS = ("status", "modelUsed", "finishReason", "tokens", "costUsd")


def stored(run: Run) -> list[bytes]:
    """The attempts as the store has them."""
    return [
        msgspec.json.encode({"stepId": step, "loopPath": path or None, "attempt": attempt} | fields)
        for (step, path, attempt), fields in run.items()
    ]


def summary(run_id: str, **fields: Any) -> RunSummary:
    return RunSummary(id=run_id, **{"flow_id": "flow", "status": "completed", "version": 1, **fields})


def diff(
    a: Run,
    b: Run,
    *,
    runs: tuple[RunSummary, RunSummary] = (summary("a"), summary("b")),
    with_same: bool = False,
    a_is_whole: bool = True,
    b_is_whole: bool = True,
    allowance: DiffAllowance | None = None,
    most_rows: int = 1000,
) -> RunDiff:
    texts: dict[str, str] = {}
    rows_a, rows_b = stored(a), stored(b)
    pairs = align(
        [read_digest(at, data, texts) for at, data in enumerate(rows_a)],
        [read_digest(at, data, texts) for at, data in enumerate(rows_b)],
        order=ORDER,
    )
    pairs = without_unread(pairs, a_is_whole=a_is_whole, b_is_whole=b_is_whole)
    allowance = allowance or DiffAllowance(visits=10**6, told_bytes=10**6)
    rows = [
        row_of(
            pair,
            (
                StoredAttempt(step_id="") if pair.a is None else read_attempt(rows_a[pair.a.position]),
                StoredAttempt(step_id="") if pair.b is None else read_attempt(rows_b[pair.b.position]),
            ),
            allowance=allowance,
        )
        for pair in pairs
        if pair.differs
    ]
    return compose(*runs, pairs, rows[:most_rows], with_same=with_same, is_whole=a_is_whole and b_is_whole)


def expected_fields(a: JsonObject, b: JsonObject) -> set[str]:
    """The fields in which two attempts differ, from the words of the contract."""
    fields = {name for name in SCALARS if a.get(name) != b.get(name)}
    if a.get("errorContext") != b.get("errorContext"):
        fields.add("error")
    calls, others = a.get("modelCalls", []), b.get("modelCalls", [])
    is_kept = all("request" in call for call in [*calls, *others])
    for field, names in (
        ("modelRequests", ["model", *["request"] * is_kept]),
        ("modelResponses", ["finishReason", "errorCode", *["response"] * is_kept]),
    ):
        told = [[[call.get(name) for name in names] for call in each] for each in (calls, others)]
        if calls and others and told[0] != told[1]:
            fields.add(field)
    for part in ("input", "output"):
        one, other = a.get(f"{part}Context"), b.get(f"{part}Context")
        sizes = a.get(f"{part}SizeBytes"), b.get(f"{part}SizeBytes")
        if None not in (one, other) and (
            one != other or repr(one).count("True") != repr(other).count("True")
        ):
            fields.add(part)
        elif None not in sizes and sizes[0] != sizes[1]:
            fields.add(f"{part}SizeBytes")
    return fields


@given(RUNS, RUNS)
def test_the_rows_are_the_attempts_that_differ_with_the_fields_in_which_they_do(a: Run, b: Run) -> None:
    found = diff(a, b)
    told = {
        (row.step_id, row.loop_path or (), row.attempt): {change.field for change in row.changes}
        - {"durationMs"}
        for row in found.rows
        if row.in_a and row.in_b
    }
    expected = {at: expected_fields(a[at], b[at]) for at in a.keys() & b.keys()}
    assert told == {at: fields for at, fields in expected.items() if fields}
    alone = {
        (row.step_id, row.loop_path or (), row.attempt): row.in_a
        for row in found.rows
        if row.in_a is not row.in_b
    }
    assert alone == {at: at in a for at in a.keys() ^ b.keys()}
    assert not found.cut


@given(RUNS, RUNS)
def test_rows_are_in_the_order_of_the_flow_and_the_first_is_the_divergence(a: Run, b: Run) -> None:
    found = diff(a, b)
    at = [ADDRESSES.index((row.step_id, row.loop_path or (), row.attempt)) for row in found.rows]
    assert at == sorted(at)
    if found.rows:
        first = found.first_divergence
        assert first is not None
        assert (first.step_id, first.loop_path, first.attempt) == (
            found.rows[0].step_id,
            found.rows[0].loop_path,
            found.rows[0].attempt,
        )
    assert (found.different_rows, found.same_rows) == (len(at), len(a.keys() | b.keys()) - len(at))


@given(RUNS)
def test_a_run_is_the_same_as_itself_whatever_it_took(run: Run) -> None:
    slower = {at: fields | {"durationMs": 99} for at, fields in run.items()}
    found = diff(run, slower)
    assert (found.same, found.first_divergence, found.rows) == (True, None, [])
    assert found.same_rows == len(run)


OK: JsonObject = {"status": "completed", "inputContext": {"q": 1}, "outputContext": {"text": "gut"}}
FAILED = {
    "status": "failed",
    "inputContext": {"q": 1},
    "errorContext": {"code": "TIMEOUT", "message": "late"},
}
B3 = ("b", (3,), 1)


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (OK, OK | {"outputContext": {"text": "good"}}, 'output differs at text: "gut" / "good"'),
        (OK, OK | {"inputContext": {"q": 2}}, "input differs at q: 1 / 2"),
        (OK, OK | {"inputContext": {"r": 1}}, "input differs at q: only in the first run, 1 and 1 more"),
        (
            OK | {"modelCalls": [{"number": 1, "model": "m", "errorCode": "TIMEOUT"}]},
            OK | {"modelCalls": [{"number": 1, "model": "m", "finishReason": "stop"}]},
            'model response differs at [0].errorCode: only in the first run, "TIMEOUT" and 1 more',
        ),
        (OK, FAILED, "status differs: completed / failed (TIMEOUT: late)"),
    ],
)
def test_the_first_divergence_is_said_in_a_sentence(a: JsonObject, b: JsonObject, sentence: str) -> None:
    found = diff({B3: a}, {B3: b}).first_divergence
    assert found is not None
    assert found.sentence == f"b[3]: {sentence}"


def test_content_that_one_run_alone_has_kept_is_no_difference_and_the_answer_says_so() -> None:
    found = diff({B3: OK}, {B3: {"status": "completed"}})
    assert (found.same, found.size_only_rows) == (True, 1)
    assert diff({B3: OK}, {B3: OK}).size_only_rows == 0


def test_of_a_run_that_is_not_there_as_a_whole_nothing_is_said_to_be_missing() -> None:
    for found in (diff({}, {B3: OK}, a_is_whole=False), diff({B3: OK}, {}, b_is_whole=False)):
        assert (found.rows, found.cut, found.same) == ([], True, False)


def test_content_beyond_the_allowance_is_not_compared_and_the_row_says_so() -> None:
    outputs: list[Run] = [
        {("b", (at,), 1): OK | {"outputContext": {"text": text}} for at in range(9)} for text in "xy"
    ]
    found = diff(outputs[0], outputs[1], allowance=DiffAllowance(visits=12, told_bytes=10**6))
    assert found.cut
    assert [bool(row.changes[0].paths) for row in found.rows] == [True] * 2 + [False] * 7
    assert [row.changes[0].cut for row in found.rows] == [False] * 2 + [True] * 7
    found = diff(outputs[0], outputs[1], allowance=DiffAllowance(visits=10**6, told_bytes=60))
    assert [row.changes[0].cut for row in found.rows] == [False] * 2 + [True] * 7


def test_what_takes_long_to_be_decoded_is_not() -> None:
    heavy: list[Run] = [{B3: OK | {"outputContext": {"n": [1e300 * (at + 1)] * 200_000}}} for at in range(2)]
    (row,) = diff(heavy[0], heavy[1]).rows
    assert [(change.field, change.paths, change.cut) for change in row.changes] == [("output", [], True)]


def test_runs_that_end_differently_after_the_same_steps_differ() -> None:
    found = diff({B3: OK}, {B3: OK}, runs=(summary("a"), summary("b", status="cancelled")))
    assert not found.same
    assert found.first_divergence is not None
    assert "first run is completed and the second is cancelled" in found.first_divergence.sentence


@pytest.mark.parametrize(
    ("one", "other", "flows"),
    [
        ({}, {}, "same"),
        ({"version": 0}, {"version": 0}, "drafts"),
        ({"version": 0}, {}, "versions"),
        ({"version": 0}, {"version": 0, "flow_id": "other"}, "different"),
    ],
)
def test_it_says_whether_both_are_runs_of_the_same_flow(
    one: JsonObject, other: JsonObject, flows: str
) -> None:
    assert diff({}, {}, runs=(summary("a", **one), summary("b", **other))).flows == flows


def test_attempts_that_are_not_listed_are_counted() -> None:
    outputs: list[Run] = [
        {("b", (at,), 1): OK | {"outputContext": {"text": text}} for at in range(9)} for text in "xy"
    ]
    found = diff(outputs[0], outputs[1], most_rows=4)
    assert (len(found.rows), found.different_rows, found.cut) == (4, 9, True)


GRID = """
slug: grid
steps:
  - {id: first, type: passthrough}
  - id: rows
    type: loop
    over: items
    steps:
      - {id: before, type: passthrough}
      - {id: columns, type: loop, over: item, steps: [{id: cell, type: passthrough}]}
      - {id: after, type: passthrough}
  - id: either
    type: condition
    if: 'true'
    then: [{id: yes_, type: passthrough}]
    else: [{id: no_, type: passthrough}]
  - {id: last, type: passthrough}
"""

IN_ORDER: list[tuple[str, tuple[int, ...]]] = [
    ("first", ()),
    ("rows", ()),
    ("before", (0,)),
    ("cell", (0, 0)),
    ("cell", (0, 1)),
    ("after", (0,)),
    ("before", (1,)),
    ("cell", (1, 0)),
    ("after", (1,)),
    ("before", (10,)),
    ("yes_", ()),
    ("no_", ()),
    ("last", ()),
]


def in_order(order: FlowOrder, steps: list[tuple[str, tuple[int, ...]]]) -> list[tuple[str, tuple[int, ...]]]:
    shuffled = random.Random(7).sample(steps, len(steps))
    return sorted(shuffled, key=lambda step: order.key(*step))


def test_a_run_is_in_the_order_of_its_flow_iteration_by_iteration() -> None:
    assert in_order(FlowOrder(step_locations(flow_nodes(parse_flow(GRID)))), IN_ORDER) == IN_ORDER


def test_a_step_that_only_one_version_has_stands_behind_the_one_before_it() -> None:
    old = [StepLocation("a"), StepLocation("gone"), StepLocation("z")]
    new = [
        StepLocation("start"),
        StepLocation("a"),
        StepLocation("new"),
        StepLocation("newer"),
        StepLocation("z"),
    ]
    steps = ["start", "a", "new", "newer", "gone", "z"]
    assert [step for step, _ in in_order(FlowOrder(old, new), [(step, ()) for step in steps])] == steps

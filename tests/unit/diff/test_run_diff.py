"""Two runs beside each other: which rows differ, in the order of the flow; spans paired by their names."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.diff.alignment import FlowOrder, StepLocation, align, align_spans, step_locations
from runglass.diff.attempt_diff import DiffAllowance, compose, row_of
from runglass.diff.digest import StoredAttempt, read_attempt, read_digest
from runglass.diff.run_diff import RunDiff
from runglass.flows.parser import parse_flow
from runglass.log.trace import RunSummary
from runglass.server.services.outlines import flow_nodes
from tests.examples import examples
from tests.records import there
from tests.unit.test_span_outline import Span, stored

JsonObject = dict[str, Any]

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
"""
ORDER = FlowOrder(step_locations(flow_nodes(parse_flow(GRID))))
ADDRESSES = [
    ("first", (), 1),
    ("first", (), 2),
    ("rows", (), 1),
    ("before", (2,), 1),
    ("cell", (2, 3), 1),
    ("cell", (2, 10), 1),
    ("after", (2,), 1),
    ("before", (10,), 1),
    ("yes_", (), 1),
    ("no_", (), 1),
]
"""In the order of the flow."""
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


def stored_attempts(run: Run, *, at_the_top: JsonObject) -> list[bytes]:
    """The attempts as the store has them; those outside of loops with these fields."""
    return [
        msgspec.json.encode(
            {"stepId": step, "attempt": attempt} | ({"loopPath": path} if path else at_the_top) | fields
        )
        for (step, path, attempt), fields in run.items()
    ]


def summary(run_id: str, **fields: Any) -> RunSummary:
    return RunSummary(id=run_id, **{"flow_id": "flow", "status": "completed", "version": 1, **fields})


def diff(
    a: Run,
    b: Run,
    *,
    runs: tuple[RunSummary, RunSummary] = (summary("a"), summary("b")),
    allowance: DiffAllowance | None = None,
    most_rows: int = 1000,
) -> RunDiff:
    texts: dict[str, str] = {}
    # Logs from elsewhere may say so by an empty list.
    rows_a, rows_b = stored_attempts(a, at_the_top={}), stored_attempts(b, at_the_top={"loopPath": []})
    pairs = align(
        [read_digest(at, data, texts) for at, data in enumerate(rows_a)],
        [read_digest(at, data, texts) for at, data in enumerate(rows_b)],
        order=ORDER,
    )
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
    return compose(*runs, pairs, rows[:most_rows], with_same=False, is_whole=True)


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


@examples(300, of=1000)
@given(RUNS, RUNS)
def test_the_rows_are_the_attempts_that_differ_with_the_fields_in_which_they_do(a: Run, b: Run) -> None:
    """In the order of the flow; the first of them is the divergence."""
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
    assert not any(row.step_id_b or row.loop_path_b for row in found.rows), "the address is the same in both"
    at = [ADDRESSES.index((row.step_id, row.loop_path or (), row.attempt)) for row in found.rows]
    assert at == sorted(at)
    assert (found.different_rows, found.same_rows) == (len(at), len(a.keys() | b.keys()) - len(at))
    first = found.first_divergence
    assert (first and (first.step_id, first.loop_path, first.attempt)) == (
        (found.rows[0].step_id, found.rows[0].loop_path, found.rows[0].attempt) if at else None
    )
    assert found.same == (not at)


OK: JsonObject = {"status": "completed", "inputContext": {"q": 1}, "outputContext": {"text": "gut"}}
FAILED = {
    "status": "failed",
    "inputContext": {"q": 1},
    "errorContext": {"code": "TIMEOUT", "message": "late"},
}
HERE = ("before", (3,), 1)


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
        (
            FAILED,
            FAILED | {"errorContext": {"code": "TIMEOUT", "message": "later"}},
            'error differs at message: "late" / "later"',
        ),
    ],
)
def test_the_first_divergence_is_said_in_a_sentence(a: JsonObject, b: JsonObject, sentence: str) -> None:
    found = there(diff({HERE: a}, {HERE: b}).first_divergence)
    assert found.sentence == f"before[3]: {sentence}"


def test_content_that_one_run_alone_has_kept_is_no_difference_and_the_answer_says_so() -> None:
    found = diff({HERE: OK}, {HERE: {"status": "completed"}})
    assert (found.same, found.size_only_rows) == (True, 1)
    assert diff({HERE: OK}, {HERE: OK}).size_only_rows == 0


def test_what_is_beyond_the_allowance_is_not_compared_or_listed_and_the_answer_says_so() -> None:
    runs: list[Run] = [
        {("before", (at,), 1): OK | {"outputContext": {"text": text}} for at in range(9)} for text in "xy"
    ]
    found = diff(*runs, allowance=DiffAllowance(visits=12, told_bytes=10**6))
    assert found.cut
    assert [bool(row.changes[0].paths) for row in found.rows] == [True] * 2 + [False] * 7
    assert [row.changes[0].cut for row in found.rows] == [False] * 2 + [True] * 7
    found = diff(*runs, allowance=DiffAllowance(visits=10**6, told_bytes=60))
    assert [row.changes[0].cut for row in found.rows] == [False] * 2 + [True] * 7
    found = diff(*runs, most_rows=4)
    assert (len(found.rows), found.different_rows, found.cut) == (4, 9, True)


def test_what_takes_long_to_be_decoded_is_not() -> None:
    runs: list[Run] = [{HERE: OK | {"outputContext": {"n": [n] * 200_000}}} for n in (1e300, 2e300)]
    (row,) = diff(*runs).rows
    assert [(change.field, change.paths, change.cut) for change in row.changes] == [("output", [], True)]


def test_runs_that_end_differently_after_the_same_steps_differ() -> None:
    found = diff({HERE: OK}, {HERE: OK}, runs=(summary("a"), summary("b", status="cancelled")))
    assert not found.same
    sentence = there(found.first_divergence).sentence
    assert "first run is completed and the second is cancelled" in sentence


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


def test_a_step_that_only_one_version_has_stands_behind_the_one_before_it() -> None:
    old = [StepLocation(step) for step in ("a", "gone", "z")]
    new = [StepLocation(step) for step in ("start", "a", "new", "newer", "z")]
    steps = ["start", "a", "new", "newer", "gone", "z"]
    order = FlowOrder(old, new)
    assert sorted(sorted(steps), key=lambda step: order.key(step, ())) == steps


def paired(a: Sequence[Span], b: Sequence[Span]) -> list[tuple[int | None, ...]]:
    """The ids of the pairs."""
    texts: dict[str, str] = {}
    found = align_spans(*([read_digest(row[0], row[-1], texts) for row in stored(run)] for run in (a, b)))
    return [
        tuple(None if each is None or each.span is None else int(each.span.id, 16) for each in pair)
        for pair in found
    ]


RECORDED = [
    Span(1, None, 0, name="agent"),
    Span(2, 1, 1, name="chat"),
    Span(3, 1, 2, name="search"),
    Span(4, 3, 3, name="chat"),
    Span(5, 1, 4, name="chat"),
]


def test_a_run_with_one_call_more_pairs_all_others_whatever_the_order_of_arrival() -> None:
    more = [
        Span(15, 11, 5, name="chat"),
        Span(16, 13, 4, name="rerank"),
        Span(12, 11, 1, name="chat"),
        Span(11, None, 0, name="agent"),
        Span(14, 13, 3, name="chat"),
        Span(13, 11, 2, name="search"),
    ]
    assert paired(RECORDED, more) == [(1, 11), (2, 12), (3, 13), (4, 14), (None, 16), (5, 15)]
    assert paired(more, RECORDED) == [(11, 1), (12, 2), (13, 3), (14, 4), (16, None), (15, 5)]


def test_a_call_more_at_the_beginning_moves_no_other_out_of_its_pair() -> None:
    def turns(first: int, *names: str) -> list[Span]:
        return [Span(first + at, None, at, name=name) for at, name in enumerate(names)]

    a, b = turns(1, "chat", "tool", "chat", "tool"), turns(11, "chat", "chat", "tool", "chat", "tool")
    assert paired(a, b) == [(None, 11), (1, 12), (2, 13), (3, 14), (4, 15)]
    assert paired(turns(1, "x", "y"), turns(11, "y", "x")) in ([(1, 12), (2, 11)], [(2, 11), (1, 12)])
    many = turns(1, *["chat"] * 300)
    assert paired(many, many[1:])[-1] == (300, None)


parents = st.integers(1, 8)
spans = st.tuples(
    st.integers(1, 6), st.none() | parents, st.integers(0, 2), st.just(2), st.sampled_from("ab")
)
recordings = st.lists(spans.map(lambda about: Span(*about)), unique_by=lambda span: span.id)


@given(recordings, recordings)
def test_each_span_is_in_one_pair_whatever_cycles_there_are(a: list[Span], b: list[Span]) -> None:
    found = paired(a, b)
    assert sorted(each for each, _ in found if each is not None) == sorted(span.id for span in a)
    assert sorted(each for _, each in found if each is not None) == sorted(span.id for span in b)
    assert all(one == other for one, other in paired(a, a))


def test_deep_runs_are_paired() -> None:
    deep = [Span(at, at - 1 or None) for at in range(1, 20_000)]
    assert all(a == b for a, b in paired(deep, deep))

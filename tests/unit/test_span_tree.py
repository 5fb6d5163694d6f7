"""What the spans of a recorded run add up to, beside sums that are worked out anew from all of them."""

import tracemalloc
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.log.events import FlowCompleted, FlowFailed, KnownEvent, decode_event, encode_event
from runglass.log.fold import RunFold, TraceFold
from runglass.log.span_state import SpanState
from runglass.log.span_tree import SpanTree
from runglass.log.trace import ModelCall, RunSummary, RunTotals, TokenBreakdown
from tests.examples import examples
from tests.recorded_spans import END, Recording, asked, id_of, raw, span, used
from tests.records import there


class Reference:
    """The sums by the words of the specification, with nothing kept from one span to the next."""

    def __init__(self, states: dict[str, SpanState]) -> None:
        self.states = states
        self.parents = {id: state.parent_span_id for id, state in states.items()}
        for parent in list(self.parents.values()):
            if parent is not None:
                self.parents.setdefault(parent, None)
        self.cut = set()
        for id in self.parents:
            around = [id]
            while (above := self.parents[around[-1]]) is not None and above not in around:
                around.append(above)
            if above == id:
                self.cut.add(min(around))
        for id in self.cut:
            self.parents[id] = None

    def above(self, id: str) -> list[str]:
        found = []
        while (parent := self.parents[id]) is not None:
            found.append(id := parent)
        return found

    def innermost(self, ids: set[str]) -> set[str]:
        return ids - {above for id in ids for above in self.above(id)}

    @property
    def telling(self) -> set[str]:
        states = self.states.values()
        return {state.span_id for state in states if state.tokens or state.cost_usd is not None}

    @property
    def calls(self) -> set[str]:
        return {state.span_id for state in self.states.values() if state.kind in ("llm", "embedding")}

    @property
    def unmetered(self) -> set[str]:
        counted, calls = self.innermost(self.telling), self.calls
        return {
            id
            for id in self.innermost(calls)
            if self.states[id].end_time_unix_nano is not None
            and (id not in self.telling or self.states[id].model_calls[0].cost_unknown == "bad_usage")
            and not any(above in counted & calls for above in self.above(id)[:16])
        }

    def model(self, id: str) -> str:
        state = self.states[id]
        return state.model_calls[0].model if state.model_calls else state.model_used or "unknown"

    def check(self, totals: RunTotals) -> None:
        counted = [self.states[id] for id in self.innermost(self.telling)]
        failed = [state for state in counted if state.status == "error" and state.end_time_unix_nano]
        assert (tokens_of(counted), cost_of(counted)) == (totals.tokens, totals.cost_usd)
        assert (tokens_of(failed), cost_of(failed)) == (totals.failed_tokens, totals.failed_cost_usd)
        assert totals.unmetered_calls == len(self.unmetered)
        assert totals.unpriced_calls == sum(state.cost_usd is None for state in counted)
        calls = Counter(map(self.model, self.innermost(self.calls)))
        assert {name: model.calls for name, model in totals.by_model.items() if model.calls} == calls
        unmetered = Counter(map(self.model, self.unmetered))
        assert {
            n: model.unmetered_calls for n, model in totals.by_model.items() if model.unmetered_calls
        } == unmetered
        for name, model in totals.by_model.items():
            assert model.tokens == tokens_of([each for each in counted if self.model(each.span_id) == name])


def tokens_of(states: list[SpanState]) -> TokenBreakdown | None:
    told = [state.tokens for state in states if state.tokens]
    if not told:
        return None
    prompt, completion = sum(each.prompt for each in told), sum(each.completion for each in told)
    return TokenBreakdown(prompt, completion, prompt + completion)


def cost_of(states: list[SpanState]) -> str | None:
    costs = [Decimal(state.cost_usd) for state in states if state.cost_usd is not None]
    return format(sum(costs, Decimal(0)).normalize(), "f") if costs else None


@st.composite
def usages(draw: st.DrawFn) -> dict[str, Any]:
    match draw(st.integers(0, 5)):
        case 0:
            return asked(draw(st.integers(1, 9)), 1, draw(st.sampled_from([None, "0.25"])), model="a")
        case 1:
            call = ModelCall(number=1, model=draw(st.sampled_from("ab")), cost_unknown="no_usage")
            return {"kind": "llm", "model_calls": (call,)}
        case 2:
            call = ModelCall(number=1, model="b", cost_unknown="bad_usage", finish_reason="length")
            return {
                "kind": "embedding",
                "model_calls": (call,),
                "cost_usd": draw(st.sampled_from([None, "3"])),
            }
        case 3:
            return {"kind": "agent", **used(draw(st.integers(1, 9)), 2, model="c")}
    return {"kind": draw(st.sampled_from(["tool", "chain"]))}


@st.composite
def arrivals(draw: st.DrawFn) -> list[SpanState]:
    """Spans with parents of any kind, cycles and changed parents among them, and repeats that add to them."""
    ids = st.integers(1, draw(st.sampled_from([4, 8, 25])))
    return [
        span(
            draw(ids),
            draw(st.none() | ids),
            end=draw(st.sampled_from([None, 5])),
            status=draw(st.sampled_from(["ok", "error"])),
            session=draw(st.sampled_from([None, "one", "two"])),
            **draw(usages()),
        )
        for _ in range(draw(st.integers(1, 20)))
    ]


@examples(400, of=3000)
@given(spans=arrivals(), looks=st.integers(1, 5), seed=st.integers(0, 99))
def test_sums_are_those_of_all_states_in_any_order(spans: list[SpanState], looks: int, seed: int) -> None:
    one = Recording()
    for number, each in enumerate(spans):
        one.take([each])
        if number % looks == 0:
            Reference(one.known).check(there(one.summary.totals))
    shuffled = spans[:]
    Random(seed).shuffle(shuffled)
    other = Recording(shuffled)
    assert other.summary == one.summary


def totals_of(*spans: SpanState) -> RunTotals:
    totals = there(Recording(spans).summary.totals)
    assert Recording(spans[::-1]).summary.totals == totals
    return totals


def silent(number: int, parent: int | None = None) -> SpanState:
    call = ModelCall(number=1, model="m", cost_unknown="no_usage")
    return span(number, parent, kind="llm", model_calls=(call,))


def test_a_call_without_usage_is_unmetered_unless_one_around_it_tells_it() -> None:
    assert totals_of(silent(1)).unmetered_calls == 1
    assert totals_of(span(1, **asked(10, 2)), silent(2, 1)).unmetered_calls == 0
    assert totals_of(span(1, kind="agent", **used(10, 2)), silent(2, 1)).unmetered_calls == 1
    both = totals_of(span(1, **asked(10, 2)), silent(2, 1), span(3, 1, **asked(4, 1)))
    assert (both.unmetered_calls, both.tokens) == (1, TokenBreakdown(4, 1, 5))


@pytest.mark.parametrize(("levels", "unmetered"), [(16, 0), (17, 1)])
def test_a_call_around_is_looked_for_sixteen_levels_up(levels: int, unmetered: int) -> None:
    between = [span(number, number - 1) for number in range(2, levels + 1)]
    totals = totals_of(span(1, **asked(10, 2)), *between, silent(levels + 1, levels))
    assert totals.unmetered_calls == unmetered


def test_cycles_are_cut_above_their_lowest_id() -> None:
    one, two, three = span(1, 2, **asked(1, 1)), span(2, 3, **asked(2, 1)), span(3, 1, **asked(4, 1))
    for order in ([one, two, three], [three, two, one], [two, one, three]):
        summary = Recording([*order, span(4, 4)]).summary
        assert there(summary.totals).tokens == TokenBreakdown(2, 1, 3), "3 is in 1, and 2 in 3"
        assert there(summary.recording).notes == (
            f"a cycle of spans is cut above span {id_of(1)}",
            f"a cycle of spans is cut above span {id_of(4)}",
        )


def test_so_many_cycles_are_told_one_by_one() -> None:
    told = there(Recording(span(number, number) for number in range(1, 14)).summary.recording)
    assert len(told.notes) == 11
    assert told.notes[-1] == "and 3 more cycles"


@pytest.mark.parametrize("order", ["up", "any"])
def test_a_tree_of_100_000_levels(order: str) -> None:
    spans = [span(number, number - 1 or None) for number in range(1, 100_001)]
    spans[0] = span(1, **asked(9, 9))
    spans[-1] = span(100_000, 99_999, **asked(1, 1))
    if order == "up":
        spans.reverse()
    elif order == "any":
        Random(7).shuffle(spans)
    summary = Recording(spans).summary
    told = there(summary.recording)
    assert there(summary.totals).tokens == TokenBreakdown(1, 1, 2)
    assert (summary.step_count, told.notes) == (100_000, ())
    assert told.entry_span_id == id_of(1)


def test_beyond_a_hundred_models_there_are_others() -> None:
    spans = [span(number, **asked(1, 1, "0.1", model=f"model {number:05}")) for number in range(1, 10_001)]
    spans += [span(20_000 + number, **asked(1, 1, model="model 09999")) for number in range(5)]
    totals = totals_of(*spans)
    assert len(totals.by_model) == 101
    assert totals.by_model["model 09999"].calls == 6
    assert list(totals.by_model)[:2] == ["model 09999", "model 00001"]
    assert totals.by_model["other"].calls == 10_005 - 6 - 99
    assert totals.by_model["other"].cost_usd == "990"
    assert totals.cost_usd == "1000"


def test_the_entry_is_the_agent_that_began_first_or_else_the_first_top_span() -> None:
    def told(*spans: SpanState) -> tuple[str | None, str | None]:
        recording = there(Recording(spans).summary.recording)
        assert Recording(spans[::-1]).summary.recording == recording
        return recording.name, recording.entry_span_id

    web, chat = span(1, start=0), span(2, 1, start=5)
    agents = span(4, 2, start=8, entry_name="late"), span(3, 2, start=7, entry_name="early")
    assert told(web, chat) == ("span 1", id_of(1))
    assert told(chat) == ("span 2", id_of(2))
    assert told(web, chat, *agents) == ("early", id_of(3))
    assert told(span(6, start=1), span(5, start=1)) == ("span 5", id_of(5))
    assert told() == (None, None)


def test_texts_in_the_summary_are_short() -> None:
    long = "x" * 1000
    call = asked(1, 1, model=long, error_code=long)
    recording = Recording([span(1, name=long, session=long, user=long, tags=(long,), **call)])
    assert len(msgspec.json.encode(recording.summary)) < 3000
    assert recording.steps[1].name == long


@pytest.mark.parametrize(
    "make",
    [
        lambda number: span(number, name="work"),
        lambda number: span(number, number + 10**6, name="work"),
        lambda number: span(number, name="work", **asked(5, number, "0.1")),
        lambda number: span(number, name="work", **asked(5, number, "0.1", model=f"model {number}")),
        lambda number: span(number, name=f"{number}" + "n" * 5000, user=f"{number}" + "u" * 5000),
    ],
    ids=["alike", "without parents", "calls", "models", "texts"],
)
def test_what_spans_take_in_memory_is_counted(make: Callable[[int], SpanState]) -> None:
    tree, count = SpanTree(), 4000
    tracemalloc.start()
    try:
        for number in range(1, count):
            # As of a log: no text is shared with another span.
            state = msgspec.json.decode(msgspec.json.encode(make(number)), type=SpanState)
            step_id, _ = tree.address_of(state.span_id, state.name)
            tree.add(state, step_id, number, position=number)
        tree.totals()
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 1.5 * tree.held_bytes < 4.5 * held_bytes


def test_a_run_that_continues_another_misses_no_parents() -> None:
    recording = Recording([span(1, 9)])
    told = there(recording.summary.recording)
    assert told.notes == ("parents that were not received: 1",)
    later = msgspec.structs.replace(told, continues="before")
    assert there(recording.fold.tree).recording(later).notes == ()


def test_a_log_before_its_span_keeps_its_position_and_gets_its_name() -> None:
    recording = Recording([SpanState(span_id=id_of(7)), span(1), SpanState(span_id=id_of(8))])
    assert [(step.step_id, step.loop_path, step.status) for step in recording.steps.values()] == [
        ("not_received", (0,), "completed"),
        ("span_1", (0,), "completed"),
        ("not_received", (1,), "completed"),
    ]
    recording.take([span(7, name="span 1", end=None)])
    step = recording.steps[1]
    assert (step.step_id, step.loop_path, step.status, step.name) == ("span_1", (1,), "running", "span 1")
    recording.take([span(7, name="a longer name")])
    assert (recording.steps[1].step_id, recording.steps[1].name) == ("span_1", "a longer name")
    assert recording.fold.last_position == 3


@pytest.mark.parametrize(
    ("name", "step_id"),
    [
        ("chat gpt-5", "chat_gpt-5"),
        ("", "span"),
        ("é" * 70, "_" * 64),
        ("a" * 70, "a" * 64),
        ("../x", "___x"),
    ],
)
def test_names_are_made_safe(name: str, step_id: str) -> None:
    assert Recording([span(1, name=name)]).steps[1].step_id == step_id


def test_the_end_cuts_off_what_is_open() -> None:
    recording = Recording([span(1, end=None), span(2, 1, end=None, **asked(3, 1, "0.5")), span(3, 1)])
    assert there(recording.fold.tree).open_spans == 2
    recording.add(FlowFailed(**END, error=raw({"code": "WRITER_LOST"})))
    assert [step.status for step in recording.steps.values()] == ["failed", "failed", "completed"]
    assert recording.steps[2].error_context == {"code": "WRITER_LOST"}
    totals = there(recording.summary.totals)
    assert (totals.completed, totals.failed, totals.failed_cost_usd) == (1, 2, "0.5")
    ended = recording.steps[1].completed_at, recording.steps[1].duration_ms
    assert (recording.summary.completed_at, recording.summary.duration_ms) == ended == (END["at"], 120_000)


def test_the_error_of_a_run_is_that_of_the_top_span_that_failed_first() -> None:
    def top(*spans: SpanState) -> str | None:
        return there(Recording(spans).fold.tree).failed_top()

    one, two = span(1, end=9, status="error"), span(2, end=8, status="error")
    assert top(one, two) == id_of(2)
    assert top(one, msgspec.structs.replace(two, parent_span_id=id_of(3)), span(3)) == id_of(1)
    assert top(span(1), span(2, 1, status="error")) is None


def test_times_of_a_run_are_those_of_its_spans() -> None:
    recording = Recording([span(1, start=500, end=750), span(2, 1, start=0, end=2000.5)])
    recording.add(FlowCompleted(**END))
    summary = recording.summary
    assert (summary.started_at, summary.duration_ms) == ("2027-01-15T08:00:00.000Z", 2000)
    assert (summary.completed_at, summary.status) == ("2027-01-15T08:00:02.000Z", "completed")
    step = recording.steps[1]
    assert (step.started_at, step.start_time_unix_nano) == ("2027-01-15T08:00:00.500Z", "1800000000500000000")


@pytest.mark.parametrize(
    ("session", "session_id"),
    [
        ("0af76519-16cd-43dd-8448-eb211c80319c", "0af76519-16cd-43dd-8448-eb211c80319c"),
        # As Swift and .NET may write it.
        ("0AF76519-16CD-43DD-8448-EB211C80319C", "0af76519-16cd-43dd-8448-eb211c80319c"),
        ("thread-7", "c389c27a-d9f6-58b8-a1f2-c543be321d2d"),
    ],
)
def test_a_session_has_an_id_of_ours(session: str, session_id: str) -> None:
    summary = Recording([span(1, session=session)]).summary
    assert (there(summary.recording).session, summary.session_id) == (session, session_id)


@examples(60, of=400)
@given(spans=arrivals(), cut=st.integers(0, 20), ends=st.booleans())
def test_a_fold_that_is_made_anew_goes_on_as_if_it_had_never_stopped(
    spans: list[SpanState], cut: int, ends: bool
) -> None:
    recording = Recording(spans)
    recording.add(FlowCompleted(**END) if ends else FlowFailed(**END, error=raw({"code": "WRITER_LOST"})))
    stored = [encode_event(event) for event in recording.events]
    again = RunFold(RunSummary(id="r", flow_id="f", status="pending"))
    whole = TraceFold()
    steps: dict[int, Any] = {}
    for number, data in enumerate(stored):
        event = decode_event(data)
        steps |= dict(again.apply(event))
        whole.apply(event)
        if number == cut:
            assert again.summary == whole.summary
    assert again.summary == recording.summary == whole.summary
    assert steps == recording.steps
    assert whole.trace().steps == [steps[position] for position in sorted(steps)]


def test_events_of_an_executed_run_make_no_tree() -> None:
    fold = RunFold(RunSummary(id="r", flow_id="f", status="running"))
    events: list[KnownEvent] = Recording([span(1)]).events
    assert list(fold.apply(events[1])) == []
    assert fold.tree is None

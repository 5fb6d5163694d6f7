"""What anybody is told of a run over HTTP must be what its events add up to, by a fold of their own."""

from typing import Any, NamedTuple

from tests.laws.law import Differences, Lies, named
from tests.laws.stored import as_text
from tests.reference_fold import JsonObject, reference_attempts, reference_trace


class Told(NamedTuple):
    """What readers were told of one run: its `events` so far, its trace, and all attempts of some steps.

    `listed` is its entry in the list of runs, None where it was not there.
    """

    run_id: str
    events: list[JsonObject]
    trace: JsonObject
    listed: JsonObject | None
    attempts: dict[str, JsonObject]


def broken_by_readers(told: Told, *, of_before: bool = False) -> Lies:
    """Each law that is broken. A program `of_before` tells nothing that it does not know."""
    yield from the_trace_is_the_fold_of_the_stream(told, of_before)
    yield from the_list_tells_what_the_trace_tells(told)
    yield from all_attempts_of_a_step_are_told(told)


@named("the trace that is sent is the fold of the stream")
def the_trace_is_the_fold_of_the_stream(told: Told, of_before: bool) -> Differences:
    expected = reference_trace(told.events)
    if of_before:
        known = told.trace["flowRun"].keys()
        expected["flowRun"] = {name: expected["flowRun"][name] for name in expected["flowRun"] & known}
    yield as_text(told.trace), as_text(expected)


@named("the list of runs tells what the trace tells")
def the_list_tells_what_the_trace_tells(told: Told) -> Differences:
    run: dict[str, Any] = told.trace["flowRun"]
    yield told.listed, {name: value for name, value in run.items() if name not in ("input", "result")}


@named("all attempts of a step are told, by iteration, then by number")
def all_attempts_of_a_step_are_told(told: Told) -> Differences:
    for step_id, attempts in told.attempts.items():
        yield as_text(attempts), as_text(reference_attempts(step_id, told.events))

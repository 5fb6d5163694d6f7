"""A second fold, to judge the server's by: a run's events, as a client gets them, to the JSON of its trace.

It was written from the wire contract and `docs/concepts.md` without a look at `runglass.log.fold`, and it
imports nothing of Runglass: what the two share is the specification. So it is slow and obvious, and each
question about a run is a pass of its own over all events, about a step one over the events of its place. It
expects a log in which model calls stand one by one.
"""

import itertools
from collections.abc import Iterable
from datetime import datetime
from decimal import Context, Decimal
from typing import Any

JsonObject = dict[str, Any]
Place = tuple[str, tuple[int, ...]]
"""A step, and the iteration of each loop around it: one line of a trace."""

EXACT = Context(prec=2000)
LONGEST_MESSAGE = 300
"""Characters of an error's message in a run's summary. No document says how many; the server was asked."""

LONGEST_PREVIEW = 200

RUN_ENDS = {"flow_completed": "completed", "flow_failed": "failed", "flow_cancelled": "cancelled"}
PAUSES = ("step_paused", "step_paused_for_tool_calls")
STARTS = ("step_started", "step_skipped")
ATTEMPT_ENDS = {"step_completed": "completed", "step_retrying": "failed", "step_error": "failed"}
OF_ATTEMPTS = (
    "step_started",
    "step_input",
    "step_resumed",
    "step_progress",
    "step_model_reserved",
    "step_model_call",
    "step_output",
    "step_completed",
    "step_retrying",
    "step_error",
    "step_skipped",
)
GOING_ON = (*OF_ATTEMPTS, "overrides_applied", "loop_started", "loop_completed")


def reference_trace(events: list[JsonObject]) -> JsonObject:
    """What `GET …/trace` answers for a run of which these are all events so far, the first included."""
    attempts = list(attempts_by_place(events).values())
    return {
        "flowRun": flow_run(events, list(itertools.chain(*attempts))),
        "steps": [of_place[-1] for of_place in attempts],
    }


def reference_attempts(step_id: str, events: list[JsonObject]) -> JsonObject:
    """What `GET …/steps/{stepId}/trace?attempt=all` answers: by iteration, then by attempt."""
    of_step = sorted(item for item in attempts_by_place(events).items() if item[0][0] == step_id)
    return {"stepId": step_id, "attempts": [attempt for _, attempts in of_step for attempt in attempts]}


def flow_run(events: list[JsonObject], attempts: list[JsonObject]) -> JsonObject:
    """The run's summary; `attempts` are all attempts of all its steps."""
    begin = next(event for event in events if event["eventType"] == "run_started")
    ends = [event for event in events if event["eventType"] in RUN_ENDS]
    end = ends[0] if ends else None
    overridden: list[str] = []
    for event in events:
        if event["eventType"] == "overrides_applied":
            overridden += [name for name in event["overridden"] if name not in overridden]
    return without_nulls(
        {
            "id": begin["executionId"],
            "flowId": begin["flowId"],
            "flowSlug": begin.get("flowSlug"),
            "version": begin["version"],
            "status": run_status(events),
            "triggerType": begin["triggerType"],
            "sessionId": begin.get("sessionId"),
            "startedBy": begin.get("startedBy"),
            "traceParent": begin.get("traceParent"),
            "traceState": begin.get("traceState"),
            "rerunOf": begin.get("rerunOf"),
            "stepCount": begin["stepCount"],
            "startedAt": begin["at"],
            "completedAt": end and end["at"],
            "durationMs": end and milliseconds(begin["at"], end["at"]),
            "error": end and run_error(end),
            "overridden": sorted(overridden) or None,
            "inputPreview": preview_of("inputPreview", of_type(events, "run_input")),
            "resultPreview": preview_of("resultPreview", ends),
            "expectedSteps": expected_steps(begin["stepCount"], of_type(events, "loop_started")),
            "loops": outer_loops(events) or None,
            "totals": totals(attempts, of_type(events, "step_retrying")),
            "input": run_input(of_type(events, "run_input")),
            "result": end and end.get("result"),
        }
    )


def run_input(told: list[JsonObject]) -> JsonObject | None:
    """What the caller gave, as far as it is kept."""
    for event in told:
        if "inputs" in event:
            return {name: event[name] for name in ("inputs", "messages", "attachments") if name in event}
    return None


def preview_of(member: str, events: list[JsonObject]) -> str | None:
    for event in events:
        if member in event:
            preview: str = event[member]
            return preview[:LONGEST_PREVIEW]
    return None


def run_status(events: list[JsonObject]) -> str:
    status = "running"
    for event in events:
        if event["eventType"] in RUN_ENDS:
            return RUN_ENDS[event["eventType"]]
        if event["eventType"] in PAUSES:
            status = "paused"
        elif event["eventType"] in GOING_ON:
            status = "running"
    return status


def expected_steps(step_count: int, loops: list[JsonObject]) -> int | None:
    """Every step once, those in a loop once for each iteration; not told where no loop has begun."""
    if not loops:
        return None
    for loop in loops:
        step_count += (loop["iterations"] - 1) * len(loop["stepIds"])
    return step_count


def outer_loops(events: list[JsonObject]) -> JsonObject:
    """The iterations of each loop outside of all others that has begun and has not completed since."""
    found: JsonObject = {}
    for event in events:
        if "loopPath" not in event and event["eventType"] == "loop_started":
            found[event["stepId"]] = event["iterations"]
        elif "loopPath" not in event and event["eventType"] == "loop_completed":
            found.pop(event["stepId"], None)
    return found


def run_error(end: JsonObject) -> JsonObject | None:
    """Why a run did not end well; an event that ends it well has no error."""
    if end["eventType"] == "flow_failed":
        error = end["error"]
        message = error.get("message")
        return without_nulls(
            {
                "code": error["code"],
                "message": message and message[:LONGEST_MESSAGE],
                "stepId": end.get("stepId"),
            }
        )
    if end["eventType"] == "flow_cancelled":
        return {"code": "CANCELLED", "message": end["reason"][:LONGEST_MESSAGE]}
    return None


def place_of(event: JsonObject) -> Place:
    path = event.get("loopPath")
    if path is None:
        path = [event["loopIndex"]] if "loopIndex" in event else []
    return event["stepId"], tuple(path)


def attempts_by_place(events: list[JsonObject]) -> dict[Place, list[JsonObject]]:
    """Every attempt as a StepTrace, in the order of their numbers, by places in the order of their starts."""
    of_places: dict[Place, list[JsonObject]] = {}
    for event in events:
        if event["eventType"] in STARTS:
            of_places.setdefault(place_of(event), [])
    for event in events:
        if event["eventType"] in OF_ATTEMPTS:
            of_places[place_of(event)].append(event)
        elif event["eventType"] == "content_kept":
            for kept in event["outputs"]:
                of_places[place_of(kept)].append({"eventType": "output_kept", **kept})
        elif event["eventType"] in RUN_ENDS:
            # It may be the end of an attempt, too.
            for told in of_places.values():
                told.append(event)
    return {
        place: [
            attempt_trace([event for event in told if event.get("attempt", number) == number])
            for number in sorted({event["attempt"] for event in told if event["eventType"] in STARTS})
        ]
        for place, told in of_places.items()
    }


def attempt_trace(events: list[JsonObject]) -> JsonObject:
    """The StepTrace of the attempt that `events` tell of."""
    first = next(event for event in events if event["eventType"] in STARTS)
    trace: JsonObject = {
        "stepId": first["stepId"],
        "attempt": first["attempt"],
        "loopIndex": first.get("loopIndex"),
        "loopPath": first.get("loopPath"),
        "status": "running",
        "truncated": False,
    }
    if first["eventType"] == "step_skipped":
        return without_nulls(trace | {"status": "skipped"})

    trace["startedAt"] = first["at"]
    trace["inputSizeBytes"] = first.get("inputSizeBytes")
    inputs = of_type(events, "step_input")
    for event in inputs:
        trace["inputContext"] = event.get("inputData")
        trace["inputSizeBytes"] = event.get("inputSizeBytes", trace["inputSizeBytes"])

    # The attempt's own end, else that of the run in which it still went on.
    ends = (*ATTEMPT_ENDS, "flow_failed", "flow_cancelled")
    end = next((event for event in events if event["eventType"] in ends), None)
    if end is not None:
        trace["completedAt"] = end["at"]
        trace["status"] = ATTEMPT_ENDS.get(end["eventType"], "failed")
        if end["eventType"] == "step_completed":
            trace["outputContext"] = end.get("output")
            trace["outputSizeBytes"] = end.get("outputSizeBytes")
            for kept in of_type(events, "output_kept"):
                trace["outputContext"] = kept["output"]
        elif end["eventType"] == "flow_cancelled":
            trace["errorContext"] = {"code": "CANCELLED", "message": end["reason"]}
        else:
            trace["errorContext"] = end["error"]
        trace["durationMs"] = end.get("durationMs")
        if end["eventType"] in RUN_ENDS:
            trace["durationMs"] = milliseconds(first["at"], end["at"])
    trace["truncated"] = any(event["truncated"] for event in inputs[-1:]) or bool(
        end
        and end["eventType"] == "step_completed"
        and (end.get("truncated") or any(kept["truncated"] for kept in of_type(events, "output_kept")))
    )

    calls = [event["modelCall"] for event in of_type(events, "step_model_call")]
    trace["modelCalls"] = calls or None
    trace["tokens"] = sum_of_tokens(call.get("tokens") for call in calls)
    trace["costUsd"] = sum_of_money(call.get("costUsd") for call in calls)
    for call in calls:
        trace["modelUsed"] = call.get("modelUsed", trace.get("modelUsed"))
        trace["finishReason"] = call.get("finishReason")
    trace["reservation"] = open_reservation(events)
    return without_nulls(trace)


def open_reservation(events: list[JsonObject]) -> JsonObject | None:
    """What is still reserved: the next model call gives it back, and so does the end of the attempt."""
    reservation = None
    for event in events:
        if event["eventType"] == "step_model_reserved":
            reservation = event["reservation"]
        elif event["eventType"] == "step_model_call" or event["eventType"] in (*ATTEMPT_ENDS, *RUN_ENDS):
            reservation = None
    return reservation


def totals(attempts: list[JsonObject], retried: list[JsonObject]) -> JsonObject:
    """`flowRun.totals`: every attempt and every model call, those that failed included."""
    calls = [call for attempt in attempts for call in attempt.get("modelCalls", [])]
    failed = [attempt for attempt in attempts if attempt["status"] == "failed"]
    models = list(dict.fromkeys(call["model"] for call in calls))
    reasons = [call["finishReason"] for call in calls if "finishReason" in call]
    return without_nulls(
        {
            "completed": sum(attempt["status"] == "completed" for attempt in attempts),
            "failed": len(failed) - len(retried),
            "retried": len(retried),
            "cancelled": sum(map(is_cut_off, failed)) - sum(map(is_cut_off, retried)) or None,
            "skipped": sum(attempt["status"] == "skipped" for attempt in attempts),
            "tokens": sum_of_tokens(attempt.get("tokens") for attempt in attempts),
            "costUsd": sum_of_money(attempt.get("costUsd") for attempt in attempts),
            "failedTokens": sum_of_tokens(attempt.get("tokens") for attempt in failed),
            "failedCostUsd": sum_of_money(attempt.get("costUsd") for attempt in failed),
            **unknown_costs(calls),
            "estimatedCostUsd": sum_of_money(
                call.get("costUsd") for call in calls if call.get("costEstimated")
            ),
            "byModel": {
                model: model_totals([call for call in calls if call["model"] == model]) for model in models
            }
            or None,
            "finishReasons": {reason: reasons.count(reason) for reason in reasons} or None,
        }
    )


def is_cut_off(told: JsonObject) -> bool:
    error = told.get("errorContext", told.get("error"))
    return isinstance(error, dict) and error.get("code") == "CANCELLED"


def model_totals(calls: list[JsonObject]) -> JsonObject:
    return without_nulls(
        {
            "calls": len(calls),
            "tokens": sum_of_tokens(call.get("tokens") for call in calls),
            "costUsd": sum_of_money(call.get("costUsd") for call in calls),
            **unknown_costs(calls),
        }
    )


def unknown_costs(calls: list[JsonObject]) -> JsonObject:
    return {
        "unmeteredCalls": sum(call.get("costUnknown") in ("no_usage", "bad_usage") for call in calls),
        "unpricedCalls": sum(call.get("costUnknown") == "no_price" for call in calls),
    }


def sum_of_tokens(each: Iterable[JsonObject | None]) -> JsonObject | None:
    """All of them together; none where nothing was told, which is another thing than 0."""
    told = [tokens for tokens in each if tokens is not None]
    if not told:
        return None
    return {part: sum(tokens[part] for tokens in told) for part in ("prompt", "completion", "total")}


def sum_of_money(each: Iterable[str | None]) -> str | None:
    """The exact sum of those amounts that are known, in plain notation; none where no amount is."""
    known = [Decimal(amount) for amount in each if amount is not None]
    if not known:
        return None
    amount = Decimal(0)
    for one in known:
        amount = EXACT.add(amount, one)
    text = f"{amount:f}"
    # Zeros that say nothing are left out.
    return text.rstrip("0").rstrip(".") if "." in text else text


def of_type(events: list[JsonObject], kind: str) -> list[JsonObject]:
    return [event for event in events if event["eventType"] == kind]


def milliseconds(start: str, end: str) -> int:
    """Whole milliseconds from one time of the wire to another."""
    elapsed = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    return round(elapsed.total_seconds() * 1000)


def without_nulls(fields: JsonObject) -> JsonObject:
    """A null that means "there is none" is left out; nulls inside of what was captured are content."""
    return {name: value for name, value in fields.items() if value is not None}

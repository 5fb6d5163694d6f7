"""Generated logs of runs: events as a client gets them, in every order that a run can write them.

It knows the events and when each may come, from the wire contract, and nothing of what they add up to.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from tests.reference_fold import sum_of_money, sum_of_tokens

JsonObject = dict[str, Any]

SNAPSHOTS: st.SearchStrategy[Any] = st.sampled_from(
    [{}, {"text": "a"}, {"n": None, "items": [1, 2.5, "é\U0001f600"]}, {"costUsd": "0.1", "status": "failed"}]
)
VALUES: st.SearchStrategy[Any] = SNAPSHOTS | st.sampled_from(
    [{"message": "\n two  lines\n"}, {"text": "é\U0001f600" * 101}, {"many": list(range(100))}, {"n": 1.5}]
)
"""Inputs and results of runs: short and long ones, with one text and with more."""
PREVIEWS = st.sampled_from(["{}", "hello", "é" * 201])
SIZES = st.none() | st.integers(0, 10**6)
ERRORS: st.SearchStrategy[JsonObject] = st.builds(
    lambda code, message: {"code": code} if message is None else {"code": code, "message": message},
    st.sampled_from(["STEP_FAILED", "TEMPLATE_ERROR", "CANCELLED", "RATE_LIMITED"]),
    st.sampled_from([None, "", "it broke", "x" * 300, "y" * 301, "é\U0001f600" * 200]),
)
MODELS = ["echo", "openai:small", "local:large"]
TOKENS = st.builds(
    lambda prompt, completion: {"prompt": prompt, "completion": completion, "total": prompt + completion},
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
# Amounts of very different sizes, with zeros at either end: a sum in floats would differ.
AMOUNTS = st.sampled_from(["0", "0.000045", "0.10", "3", "1000000", "0.0000000000000000000000000000000001"])

UNKNOWN = "step_dreamt"
"""The type of an event that no version knows."""

Place = tuple[str, tuple[int, ...]]

TOP_LEVEL: list[Place] = [("a", ()), ("b", ()), ("ask", ())]
PLACES: list[Place] = [
    *TOP_LEVEL,
    *(("in_loop", (index,)) for index in range(3)),
    *(("in_inner_loop", (outer, inner)) for outer in range(2) for inner in range(2)),
    ("left", ()),
    ("right", ()),
]


class Attempt:
    """An attempt that goes on."""

    def __init__(self, place: Place, number: int) -> None:
        self.place, self.number = place, number
        self.has_input = False
        self.calls: list[JsonObject] = []
        self.reserved: str | None = None


class Log:
    """A run as it is written: what has happened so far says what can happen next."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.events: list[JsonObject] = []
        self.at = datetime(2026, 1, 1, 23, 59, 58, tzinfo=UTC)
        self.attempts: dict[Place, int] = {}
        self.going_on: list[Attempt] = []
        self.to_retry: list[Place] = []
        self.completed: dict[Place, int] = {}
        self.is_waiting_for_tools = False

    def chance(self, of: int) -> bool:
        return self.draw(st.integers(1, of)) == of

    def some(self, **fields: st.SearchStrategy[Any]) -> JsonObject:
        """Each field, or none of it: what there is none of is left out."""
        return {name: self.draw(values) for name, values in fields.items() if self.draw(st.booleans())}

    def write(self, kind: str, **fields: Any) -> None:
        """Adds an event, some milliseconds after the one before."""
        self.at += timedelta(milliseconds=self.draw(st.sampled_from([0, 0, 1, 7, 1999, 86_400_000])))
        event = {
            "eventType": kind,
            "executionId": "run",
            "seq": len(self.events) + 1,
            "at": self.at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.at.microsecond // 1000:03d}Z",
        }
        self.events.append(event | {name: value for name, value in fields.items() if value is not None})

    def write_of(self, attempt: Attempt, kind: str, **fields: Any) -> None:
        self.write(kind, **where(attempt.place), attempt=attempt.number, **fields)

    def next_number(self, place: Place) -> int:
        self.attempts[place] = self.attempts.get(place, 0) + 1
        return self.attempts[place]

    def begin(self) -> None:
        header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        self.write(
            "run_started",
            runId="run",
            flowId="flow",
            stepCount=len({step for step, _ in PLACES}),
            triggerType=self.draw(st.sampled_from(["api", "job", "step", "schedule", "replay"])),
            version=self.draw(st.integers(0, 3)),
            **self.some(
                flowSlug=st.just("slug"),
                sessionId=st.just("session"),
                startedBy=st.just("nk_live_1234"),
                traceParent=st.just(header),
                traceState=st.just("a=b"),
                rerunOf=st.just("before"),
            ),
        )
        self.keeps_content = not self.chance(2)
        if self.keeps_content:
            self.take_input()
        self.override()

    def take_input(self) -> None:
        url = {"url": "https://example.com/a.png", "mimeType": "image/png"}
        self.write(
            "run_input",
            truncated=self.draw(st.booleans()),
            **self.some(
                inputs=VALUES,
                messages=st.just([{"role": "user", "content": "before"}]),
                attachments=st.just([url]),
                inputSizeBytes=st.integers(0, 10**6),
                inputPreview=PREVIEWS,
            ),
        )

    def override(self) -> None:
        if not self.chance(4):
            return
        names = st.lists(
            st.sampled_from(["b.prompt", "a.model", "a.input.text", "ask.settings"]), min_size=1, unique=True
        )
        values = st.just({"a": {"model": "echo", "prompt": None}})
        self.write("overrides_applied", overridden=self.draw(names), **self.some(blockOverrides=values))

    def pause(self) -> None:
        """For the tools of a step, or of a step-through; nothing else goes on then."""
        asking = next((each for each in self.going_on if each.place in TOP_LEVEL), None)
        for attempt in [each for each in self.going_on if each is not asking]:
            self.finish(attempt)
        if asking is None:
            self.write("step_paused", stepId="a", stepIndex=0)
            self.override()
        else:
            self.write(
                "step_paused_for_tool_calls",
                runId="run",
                stepId=asking.place[0],
                stepIndex=0,
                iterationsUsed=1,
                toolCallMessages=[],
                toolCalls=[{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
                accumulatedOutputs={},
                **spent(asking),
            )
            if self.chance(4):
                self.is_waiting_for_tools = True
                return
            self.override()
            self.write_of(asking, "step_resumed", stepIndex=0, **self.some(inputData=SNAPSHOTS))

    def end(self) -> None:
        """In one of three ways, where it ends at all."""
        way = self.draw(st.sampled_from(["none", "completed", "failed", "cancelled"]))
        if way == "cancelled":
            reason = self.draw(st.sampled_from(["asked for", "", "r" * 400]))
            self.write("flow_cancelled", runId="run", reason=reason)
        elif way == "failed":
            if not self.keeps_content:
                self.keep_outputs()
                if self.chance(2):
                    self.take_input()
            step = self.some(stepId=st.just("a"))
            self.write("flow_failed", runId="run", error=self.draw(ERRORS), **step)
        elif way == "completed":
            for attempt in list(self.going_on):
                self.finish(attempt)
            result = self.some(result=VALUES, resultPreview=PREVIEWS) if self.keeps_content else {}
            self.write("flow_completed", runId="run", **self.some(stepId=st.just("a")), **result)

    def keep_outputs(self) -> None:
        """Outputs of steps whose latest attempt ended well, unless the run has kept them."""
        ended = [place for place, number in self.completed.items() if number == self.attempts[place]]
        if self.chance(3):
            return
        kept = self.draw(st.lists(st.sampled_from(ended), unique=True)) if ended else []
        outputs = [
            {
                **where(place),
                "attempt": self.completed[place],
                "output": self.draw(SNAPSHOTS),
                "truncated": self.draw(st.booleans()),
            }
            for place in kept
        ]
        self.write("content_kept", outputs=outputs, leftOut=len(ended) - len(kept))

    def start(self) -> None:
        """A first attempt, the one after a failed one, or a step that is run again."""
        busy = [attempt.place for attempt in self.going_on]
        free = [place for place in PLACES if place not in busy]
        if not free:
            return
        place = self.draw(st.sampled_from([*self.to_retry, *free]))
        if place in self.to_retry:
            self.to_retry.remove(place)
        elif self.chance(6):
            number = self.next_number(place)
            self.write("step_skipped", **where(place), attempt=number, reason="branch not taken")
            return
        attempt = Attempt(place, self.next_number(place))
        self.going_on.append(attempt)
        self.write_of(attempt, "step_started", name="A step", stepIndex=0, **self.some(inputSizeBytes=SIZES))

    def work(self, attempt: Attempt) -> None:
        kind = self.draw(st.sampled_from(["input", "progress", "reserve", "call", "call"]))
        if kind == "input" and not attempt.has_input:
            attempt.has_input = True
            cut, data, size = self.draw(st.booleans()), self.draw(SNAPSHOTS), self.draw(st.integers(0, 10**6))
            self.write_of(attempt, "step_input", inputData=data, truncated=cut, inputSizeBytes=size)
        elif kind == "progress":
            self.write_of(attempt, "step_progress", text="some ")
        elif kind == "call":
            self.call(attempt)
        elif kind == "reserve" and attempt.reserved is None:
            attempt.reserved = self.draw(AMOUNTS)
            reservation = {"number": len(attempt.calls) + 1, "model": "echo", "usd": attempt.reserved}
            self.write_of(attempt, "step_model_reserved", reservation=reservation)

    def call(self, attempt: Attempt) -> None:
        """A model call with a cost, without one, or with an unknown cost."""
        call: JsonObject = {
            "number": len(attempt.calls) + 1,
            "model": self.draw(st.sampled_from(MODELS)),
            "truncated": self.draw(st.booleans()),
            **self.some(
                modelUsed=st.sampled_from(["small-2026", "large-2026"]),
                finishReason=st.sampled_from(["stop", "length", "tool_calls"]),
                durationMs=st.integers(0, 9999),
                cachedTokens=st.just(1),
                errorCode=st.just("INVALID_OUTPUT"),
                request=SNAPSHOTS,
                response=SNAPSHOTS,
            ),
        }
        unknown = self.draw(st.sampled_from([None, None, None, "no_usage", "bad_usage", "no_price"]))
        if unknown not in ("no_usage", "bad_usage"):
            call |= self.some(tokens=TOKENS)
        if unknown is None:
            call |= self.some(costUsd=AMOUNTS)
        else:
            call["costUnknown"] = unknown
            if attempt.reserved is not None:
                call |= {"costUsd": attempt.reserved, "costEstimated": True}
        attempt.reserved = None
        attempt.calls.append(call)
        self.write_of(attempt, "step_model_call", modelCall=call)

    def finish(self, attempt: Attempt) -> None:
        # Else hardly ever two of what stands side by side would have used anything.
        if not attempt.calls and not self.chance(4):
            self.call(attempt)
        self.going_on.remove(attempt)
        way = self.draw(st.sampled_from(["completed", "completed", "retrying", "error", "lost"]))
        duration = self.draw(st.integers(0, 10**7))
        used = spent(attempt)
        if way == "completed":
            self.completed[attempt.place] = attempt.number
            more = self.some(output=SNAPSHOTS, outputSizeBytes=SIZES)
            if "output" in more:
                snapshot = more["output"]
                self.write_of(attempt, "step_output", outputData=snapshot, outputContext=snapshot)
            self.write_of(
                attempt,
                "step_completed",
                stepIndex=0,
                durationMs=duration,
                truncated=self.draw(st.booleans()),
                finishReason=attempt.calls[-1].get("finishReason") if attempt.calls else None,
                **more,
                **used,
            )
        elif way == "error":
            error = self.draw(ERRORS)
            self.write_of(attempt, "step_error", stepIndex=0, error=error, durationMs=duration, **used)
        else:
            # Of an attempt that was lost with its process nobody knows how long it took.
            lost = way == "lost"
            self.write_of(
                attempt,
                "step_retrying",
                error={"code": "WORKER_LOST", "message": "cut off"} if lost else self.draw(ERRORS),
                nextAttempt=attempt.number + 1,
                delayMs=0,
                durationMs=None if lost else duration,
                **used,
            )
            self.to_retry.append(attempt.place)

    def start_loop(self) -> None:
        step, path = self.draw(st.sampled_from([("loop", ()), ("other", ()), ("inner", (2,))]))
        iterations, step_ids = self.draw(st.integers(0, 99)), self.draw(st.sampled_from([["a"], ["a", "b"]]))
        self.write("loop_started", **where((step, path)), iterations=iterations, stepIds=step_ids)

    def finish_loop(self) -> None:
        self.write("loop_completed", stepId="loop", iterations=3)

    def write_unknown(self) -> None:
        """An event of a later version, which means nothing to this one."""
        self.write(UNKNOWN, stepId="a", attempt=1, status="failed", costUsd="5", tokens={"prompt": 1})


def where(place: Place) -> JsonObject:
    step, path = place
    return {"stepId": step} | ({"loopIndex": path[-1], "loopPath": list(path)} if path else {})


def spent(attempt: Attempt) -> JsonObject:
    """What the calls of an attempt add up to so far; an event that ends it says so once more."""
    models = [call["modelUsed"] for call in attempt.calls if "modelUsed" in call]
    return {
        "tokens": sum_of_tokens(call.get("tokens") for call in attempt.calls),
        "costUsd": sum_of_money(call.get("costUsd") for call in attempt.calls),
        "modelUsed": models[-1] if models else None,
    }


@st.composite
def run_logs(draw: st.DrawFn) -> list[JsonObject]:
    """The events of a run, of which some go on, rest or have ended."""
    log = Log(draw)
    log.begin()
    for _ in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from(["start", "start", "work", "work", "work", "finish", "finish", "rest"]))
        if kind == "rest":
            draw(st.sampled_from([log.pause, log.start_loop, log.finish_loop, log.write_unknown]))()
            if log.is_waiting_for_tools:
                break
        elif kind == "start" or not log.going_on:
            log.start()
        elif kind == "work":
            log.work(draw(st.sampled_from(log.going_on)))
        else:
            log.finish(draw(st.sampled_from(log.going_on)))
    log.end()
    return log.events

"""What a process has done since its start, counted as it happens, for `/metrics`.

There is one count for the process, as there is one memory: `measured`. Runs, steps, projects and models have
none of their own, so its size is bounded whatever callers send. All of it happens on the event loop; an
event costs a look-up in a dict, and the few that are counted some additions.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from runglass.log.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    StepCompleted,
    StepError,
    StepModelCall,
    StepRetrying,
)
from runglass.log.trace import ModelCall

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the buckets of durations."""
MOST_NAMES = 50
"""Providers that are told apart: their names come from flows. Further ones count as `OTHER`."""
MOST_CODES = 200
"""Codes of errors that are told apart."""
OTHER = "other"
_ATTEMPTS: dict[type, str] = {StepCompleted: "completed", StepRetrying: "retrying", StepError: "failed"}
_RUNS: dict[type, str] = {FlowCompleted: "completed", FlowFailed: "failed", FlowCancelled: "cancelled"}
"""How attempts, and runs, end with events of these types."""


class Histogram:
    """How many durations, in seconds, were at most as long as each bound, and their sum."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total_s = 0.0

    def add(self, duration_s: float) -> None:
        """Counts one more."""
        self.counts[bisect_left(SECONDS, duration_s)] += 1
        self.total_s += duration_s


class Measurements:
    """What is counted; whoever shows it reads the attributes."""

    def __init__(self) -> None:
        self.append_s = Histogram()
        self.failed_appends = 0
        self.attempt_s = {outcome: Histogram() for outcome in ("completed", "retrying", "failed")}
        self.ended_runs = Counter({"completed": 0, "failed": 0, "cancelled": 0})
        self.claimed_runs = 0
        self.taken_over_runs = 0
        """Of the claimed runs, those that another process or an earlier lease had left off."""
        self.lost_leases = 0
        self.queued_s = Histogram()
        """From the creation of a run to its claim."""
        self.response_s: dict[tuple[str, int], Histogram] = {}
        """Until a response begins, by endpoint and the first digit of its status, 0 for none."""
        self.error_responses: Counter[str] = Counter()
        """By the code of the error."""
        self.model_calls: Counter[tuple[str, str]] = Counter()
        """By provider, and by `ok` or the code of the failure."""
        self.tokens: Counter[tuple[str, str]] = Counter()
        """By provider, and by `prompt` or `completion`."""
        self.cost_usd: dict[str, Decimal] = {}
        self.unknown_costs: Counter[str] = Counter()
        self.spans = Counter(dict.fromkeys(("received", "recorded", "repeated"), 0))
        """Spans and log records of other programs that came, and spans of which something new was stored."""
        self.refused_spans: Counter[str] = Counter()
        """By reason; the reasons are ours."""
        self.readable_s = Histogram()
        """From the arrival of what other programs send until it can be read."""
        self.otlp_requests = Counter(dict.fromkeys(("traces", "logs", "metrics"), 0))
        self.sent_runs = self.refused_runs = 0
        self.sent_spans = {"accepted": 0, "refused": 0}
        """What was sent on as spans, by what the receiver said."""
        self.failed_sends = 0
        self._providers: set[str] = set()

    def request(self, endpoint: str, status: int, begun_s: float) -> None:
        """Counts a request to the endpoint, whose response began after `begun_s`; status 0 for none."""
        kind = endpoint, status // 100
        if (histogram := self.response_s.get(kind)) is None:
            histogram = self.response_s[kind] = Histogram()
        histogram.add(begun_s)

    def error_response(self, code: str) -> None:
        """Counts a response with an error."""
        known = code in self.error_responses or len(self.error_responses) < MOST_CODES
        self.error_responses[code if known else OTHER] += 1

    def note(self, events: Iterable[Any]) -> None:
        """Counts what events tell that are about to be stored."""
        for event in events:
            kind = type(event)
            if kind in _ATTEMPTS:
                # Unknown where another process had begun it.
                if event.duration_ms is not None:
                    self.attempt_s[_ATTEMPTS[kind]].add(event.duration_ms / 1000)
            elif kind in _RUNS:
                self.ended_runs[_RUNS[kind]] += 1
            elif kind is StepModelCall:
                self._model_call(event.model_call)

    def _model_call(self, call: ModelCall) -> None:
        provider = self._told_apart(call.provider or OTHER)
        self.model_calls[provider, call.error_code or "ok"] += 1
        if call.tokens is not None:
            self.tokens[provider, "prompt"] += call.tokens.prompt
            self.tokens[provider, "completion"] += call.tokens.completion
        if call.cost_usd is not None:
            self.cost_usd[provider] = self.cost_usd.get(provider, Decimal(0)) + Decimal(call.cost_usd)
        if call.cost_unknown is not None:
            self.unknown_costs[provider] += 1

    def _told_apart(self, provider: str) -> str:
        if provider in self._providers:
            return provider
        if len(self._providers) >= MOST_NAMES or len(provider) > 64:
            return OTHER
        self._providers.add(provider)
        return provider


measured = Measurements()
"""The counts of this process."""

"""The metrics of a process, in the words of Prometheus.

Nothing is labelled by run, step, flow or model. Projects are: the 20 with the most open runs, and all
others together.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Any, SupportsFloat

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import runglass
from runglass.log.measurements import OTHER, SECONDS, Histogram, measured
from runglass.runtime.runtime import Runtime
from runglass.store.overview import MOST_UNSENT, StoreOverview

MOST_PROJECTS = 20


class RuntimeCollector(Collector):
    """Gives the metrics of a runtime. `overview` is what the store says, None while it does not answer."""

    def __init__(self, runtime: Runtime, loop_delay_s: Histogram) -> None:
        self._runtime = runtime
        self._loop_delay_s = loop_delay_s
        self.overview: StoreOverview | None = None
        self.is_ready = False

    def exposition(self) -> tuple[str, bytes]:
        """The media type and the text that Prometheus takes; what it knows of any process is in it, too."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(self)
        return CONTENT_TYPE_LATEST, generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Every metric of Runglass."""
        yield InfoMetricFamily("runglass_build", "Version of Runglass.", {"version": runglass.__version__})
        yield _gauge("ready", "1 where `/ready` says so.", self.is_ready)
        yield from self._of_store()
        yield from self._of_process()
        yield from _counted()
        yield _histogram("loop_delay_seconds", "How late the event loop was, sampled.", self._loop_delay_s)

    def _of_store(self) -> Iterator[Metric]:
        overview = self.overview
        yield _gauge("store_up", "1 while the store answers.", overview is not None)
        about = "Times that the database was restarted or replaced."
        yield _counter("store_restarts", about, self._runtime.store.generation)
        if overview is None:
            return
        yield _gauge("queue_runs", "Runs that wait for a process, over all.", overview.waiting)
        yield _gauge("queue_oldest_seconds", "Age of the oldest of them.", overview.oldest_waiting_s)
        about = "Processes, by their leases: those that only take calls have one, too."
        yield _gauge("leases", about, overview.leases)
        if self._runtime.settings.otlp_endpoint is not None:
            about = f"Runs that wait to be sent on as spans, up to {MOST_UNSENT:,}."
            yield _gauge("unsent_runs", about, overview.unsent)
            about = "How long ago the next one ended."
            yield _gauge("unsent_oldest_seconds", about, overview.oldest_unsent_s)
            about = "Runs that were deleted before they were sent."
            yield _counter("unsent_deleted_runs", about, overview.unsent_deleted)
        runs = dict(sorted(bounded(overview.open_runs).items()))
        yield _gauge("runs", "Runs that have not ended, over all processes.", runs, "project", "status")

    def _of_process(self) -> Iterator[Metric]:
        runtime = self._runtime
        engine, tails, pool = runtime.engine, runtime.tails, runtime.store.pool
        yield _gauge("executes_runs", "1 where this process executes runs.", runtime.settings.executes_runs)
        yield _gauge("active_runs", "Active runs of this process: its slots in use.", engine.queue.held)
        slots = runtime.settings.max_concurrent_runs if runtime.settings.executes_runs else 0
        yield _gauge("run_places", "Slots for active runs of this process.", slots)
        yield _gauge("set_aside_runs", "Runs that this process cannot read.", len(engine.active.set_aside))
        yield _gauge("tails", "Runs that are followed from this process.", tails.followed_runs)
        yield _gauge("tail_held_bytes", "Events kept for slow followers.", tails.held_bytes)
        yield _gauge("tail_lag_events", "Events that the slowest follower has yet to take.", tails.lag)
        yield _gauge("bus_connected", "1 where wake-ups of other processes come.", runtime.bus.fault is None)
        about = "Active recorded runs that this process knows."
        yield _gauge("open_recorded_runs", about, runtime.recordings.open_runs)
        if pool is not None:
            yield _gauge("store_pool_most", "Connections to the store that there may be.", pool.most)
            yield _gauge("store_pool_open", "Connections to the store.", pool.open)
            yield _gauge("store_pool_busy", "Of these, those that are in use.", pool.busy)
        failing = {task.name: task.failing for task in runtime.supervised}
        yield _gauge("task_failing", "1 where a task beside the runs fails.", failing, "task")


def bounded(open_runs: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """The counts by project and status, with the smaller projects together as `other`."""
    by_project: Counter[str] = Counter()
    for (project, _), count in open_runs.items():
        by_project[project] += count
    shown = {project for project, _ in by_project.most_common(MOST_PROJECTS)}
    counts: Counter[tuple[str, str]] = Counter()
    for (project, status), count in open_runs.items():
        counts[project if project in shown else OTHER, status] += count
    return dict(counts)


def _counted() -> Iterator[Metric]:
    yield _histogram("append_seconds", "Time of an append of events, to its commit.", measured.append_s)
    yield _counter("failed_appends", "Appends that the store refused.", measured.failed_appends)
    yield _counter("sent_runs", "Runs that were sent on as spans.", measured.sent_runs)
    yield _counter("refused_runs", "Those of them that their receiver did not take.", measured.refused_runs)
    yield _counter("sent_spans", "Spans by what their receiver said.", measured.sent_spans, "outcome")
    yield _counter("failed_sends", "Requests with spans that are sent again.", measured.failed_sends)
    yield _histogram("attempt_seconds", "Time of attempts of steps.", measured.attempt_s, "outcome")
    yield _counter("ended_runs", "Runs that ended in this process.", measured.ended_runs, "status")
    yield _counter("claimed_runs", "Runs that this process claimed.", measured.claimed_runs)
    yield _counter(
        "taken_over_runs", "Of these, those that a process had left off.", measured.taken_over_runs
    )
    yield _counter("lost_leases", "Leases of this process that ran out.", measured.lost_leases)
    yield _histogram("queued_seconds", "Time from the creation of a run to its claim.", measured.queued_s)
    responses = {
        (endpoint, f"{digit}xx" if digit else "none"): histogram
        for (endpoint, digit), histogram in list(measured.response_s.items())
    }
    about = "Requests, and the time until their response begins."
    yield _histogram("http_response_seconds", about, responses, "endpoint", "status")
    yield _counter("http_errors", "Responses with an error, by its code.", measured.error_responses, "code")
    yield _counter("model_calls", "Requests to models.", measured.model_calls, "provider", "outcome")
    yield _counter("tokens", "Tokens of models.", measured.tokens, "provider", "kind")
    yield _counter("cost_usd", "Cost of models, as far as it is known.", measured.cost_usd, "provider")
    yield _counter("unknown_costs", "Requests whose cost is not known.", measured.unknown_costs, "provider")
    yield _counter("spans", "Spans of other programs, by what came of them.", measured.spans, "outcome")
    yield _counter(
        "refused_spans", "Spans of other programs that were refused.", measured.refused_spans, "reason"
    )
    yield _histogram("spans_readable_seconds", "Time until spans can be read.", measured.readable_s)
    yield _counter(
        "otlp_requests", "Requests with traces, logs or metrics.", measured.otlp_requests, "signal"
    )


def _numbers(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    about: str,
    value: SupportsFloat | Mapping[Any, SupportsFloat],
    *labels: str,
) -> Metric:
    family = kind(f"runglass_{name}", about, labels=labels)
    for names, number in _by_labels(value, labels):
        family.add_metric(names, float(number))
    return family


_gauge = partial(_numbers, GaugeMetricFamily)
_counter = partial(_numbers, CounterMetricFamily)


def _histogram(
    name: str, about: str, value: Histogram | Mapping[Any, Histogram], *labels: str
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"runglass_{name}", about, labels=labels)
    for names, histogram in _by_labels(value, labels):
        # In Prometheus each bucket has those of the smaller ones, too.
        counts = zip([*map(str, SECONDS), "+Inf"], accumulate(histogram.counts), strict=True)
        family.add_metric(names, buckets=list(counts), sum_value=histogram.total_s)
    return family


def _by_labels(value: Any, labels: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    """What is measured, by the values of its labels; a key of `value` is the one label, or all of them."""
    if not labels:
        return [((), value)]
    return [((key,) if isinstance(key, str) else key, each) for key, each in list(value.items())]

"""What a Runglass server tells of the runs that came of a case, read over its API."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.emitters.ledger import Usage

ANSWERS_S = 60.0
CALLS = ("llm", "embedding")


class Told(NamedTuple):
    """The sums over all runs of a case.

    `usage` has the runs' totals, and the parts of them as the calls have them that count. `answers` are the
    responses of all calls, `failed` is how many calls failed.
    """

    usage: Usage
    unmetered: int
    runs: int
    spans: int
    sessions: frozenset[str]
    answers: list[dict[str, Any]]
    failed: int


class Api:
    """The API of a server, as a project's key sees it."""

    def __init__(self, address: str, key: str) -> None:
        self._base = f"{address}/api/v1"
        self._key = key

    def told(self, flow: str) -> Told:
        """What all runs of a flow tell; nothing where there is no such flow, as nothing was sent."""
        traces = self.traces(flow)
        totals = [trace["flowRun"].get("totals", {}) for trace in traces]
        tokens = [total.get("tokens", {}) for total in totals]
        parts = [call for trace in traces for call in _innermost(trace["steps"])]
        return Told(
            Usage(
                sum(each.get("prompt", 0) for each in tokens),
                sum(each.get("completion", 0) for each in tokens),
                sum(call.get("cachedTokens", 0) for call in parts),
                sum(call.get("cacheWriteTokens", 0) for call in parts),
                sum(call.get("reasoningTokens", 0) for call in parts),
            ),
            sum(total.get("unmeteredCalls", 0) for total in totals),
            len(traces),
            sum(len(trace["steps"]) for trace in traces),
            frozenset(filter(None, (trace["flowRun"]["recording"].get("session") for trace in traces))),
            [
                call.get("response") or {}
                for trace in traces
                for step in trace["steps"]
                for call in step.get("modelCalls", ())
            ],
            sum(
                step["status"] == "failed" and step.get("kind") in CALLS
                for trace in traces
                for step in trace["steps"]
            ),
        )

    def traces(self, flow: str) -> list[dict[str, Any]]:
        """The traces of all runs of a flow."""
        return [self._get(f"/flow-runs/{run['id']}/trace") for run in self.runs(flow)]

    def runs(self, flow: str) -> Iterator[dict[str, Any]]:
        """The summaries of all runs of a flow."""
        more: dict[str, str] = {}
        while True:
            try:
                page = self._get("/flow-runs?" + urllib.parse.urlencode({"flow": flow, "limit": 100, **more}))
            except urllib.error.HTTPError as error:
                with error:
                    if error.code != 404:
                        raise
                    return
            yield from page["runs"]
            if page["nextCursor"] is None:
                return
            more = {"cursor": page["nextCursor"]}

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(self._base + path, headers={"Authorization": f"Bearer {self._key}"})
        with urllib.request.urlopen(request, timeout=ANSWERS_S) as answer:
            return json.load(answer)


def _innermost(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The model calls in which there is no other one."""
    parents = {step["spanId"]: step.get("parentSpanId") for step in steps}
    around: set[str] = set()
    for step in steps:
        if step.get("kind") in CALLS:
            above = parents[step["spanId"]]
            while above is not None and above not in around:
                around.add(above)
                above = parents.get(above)
    for step in steps:
        if step["spanId"] not in around:
            yield from step.get("modelCalls", ())

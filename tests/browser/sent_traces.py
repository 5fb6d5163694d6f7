"""Traces as other programs send them, in OTLP/JSON, and how to send them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from runglass.testing import RunningServer
from tests.contract.wire import http_for

BEGAN_NS = int(datetime(2026, 11, 20, 14, 6, 40, tzinfo=UTC).timestamp()) * 10**9
TRACE = "0af7651916cd43dd8448eb211c80319c"

Json = dict[str, Any]


def span(
    number: int,
    name: str,
    parent: int | None = None,
    *,
    start: int = 0,
    end: int | None = 1000,
    failed: str | None = None,
    trace: str = TRACE,
    links: Sequence[Json] = (),
    events: Sequence[Json] = (),
    **attributes: Any,
) -> Json:
    """A span; times are milliseconds after the trace began, attributes have `__` for a dot."""
    made: Json = {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(BEGAN_NS + start * 1_000_000),
        "attributes": [_pair(key.replace("__", "."), value) for key, value in attributes.items()],
        "links": list(links),
        "events": list(events),
    }
    if parent is not None:
        made["parentSpanId"] = f"{parent:016x}"
    if end is not None:
        made["endTimeUnixNano"] = str(BEGAN_NS + end * 1_000_000)
    if failed is not None:
        made["status"] = {"code": 2, "message": failed}
    return made


def call(
    number: int,
    parent: int,
    *,
    tokens: tuple[int, int] | None = None,
    model: str = "gpt-4o-2024-08-06",
    **more: Any,
) -> Json:
    """A span of a call of a model."""
    usage: Json = {}
    if tokens is not None:
        usage = {"gen_ai__usage__input_tokens": tokens[0], "gen_ai__usage__output_tokens": tokens[1]}
    about: Json = {
        "gen_ai__operation__name": "chat",
        "gen_ai__provider__name": "openai",
        "gen_ai__request__model": "gpt-4o",
        "gen_ai__response__model": model,
    }
    return span(number, "chat gpt-4o", parent, **about, **usage, **more)


def _pair(key: str, value: Any) -> Json:
    match value:
        case bool():
            return {"key": key, "value": {"boolValue": value}}
        case int():
            return {"key": key, "value": {"intValue": str(value)}}
        case float():
            return {"key": key, "value": {"doubleValue": value}}
        case list():
            values = [_pair("", each)["value"] for each in value]
            return {"key": key, "value": {"arrayValue": {"values": values}}}
    return {"key": key, "value": {"stringValue": str(value)}}


def send(
    server: RunningServer, *spans: Json, key: str = "", service: str = "tickets", **resource: Any
) -> None:
    """Sends spans of one service, with an admin key unless another is given; all of them are taken in."""
    about = {"service__name": service, **resource}
    request = {
        "resourceSpans": [
            {
                "resource": {
                    "attributes": [_pair(key.replace("__", "."), each) for key, each in about.items()]
                },
                "scopeSpans": [{"scope": {"name": "openinference"}, "spans": list(spans)}],
            }
        ]
    }
    with http_for(server, key or server.key) as http:
        answer = http.post(f"{server.address}/v1/traces", json=request)
    assert (answer.status_code, answer.json()) == (200, {}), answer.text


def run_of(server: RunningServer, trace: str = TRACE, *, key: str = "", ended: bool = False) -> str:
    """The id of the newest run of a trace, once that has `ended`."""
    with http_for(server, key or server.key) as http:
        runs = http.get("/flow-runs", params={"q": "kind:recorded,plain"}).json()["runs"]
        run_id = next(str(run["id"]) for run in runs if run["recording"]["traceId"] == trace)
        if ended:
            # Its stream ends with it.
            with http.stream("GET", f"/flow-runs/{run_id}/trace/stream") as answer:
                for _ in answer.iter_lines():
                    pass
    return run_id


QUESTION = '[{"role": "user", "parts": [{"type": "text", "content": "Refund my grinder, please"}]}]'
ANSWER = (
    '[{"role": "assistant", "parts": [{"type": "text", "content": "It is on its way"}],'
    ' "finish_reason": "stop"}]'
)
TICKET: list[Json] = [
    span(1, "POST /tickets", end=3000, http__route="/tickets"),
    span(
        2,
        "answer ticket",
        1,
        start=50,
        end=2900,
        gen_ai__operation__name="invoke_agent",
        gen_ai__agent__name="answer ticket",
        gen_ai__conversation__id="thread-7",
        gen_ai__usage__input_tokens=2000,
        gen_ai__usage__output_tokens=100,
        user__id="ada",
        input__value='{"ticket": "Refund my grinder, please"}',
        output__value='{"reply": "It is on its way"}',
    ),
    call(3, 2, start=100, end=900, failed="connection reset"),
    call(
        4,
        2,
        start=1000,
        end=1800,
        tokens=(1200, 40),
        gen_ai__input__messages=QUESTION,
        gen_ai__output__messages=ANSWER,
        llm__custom="kept as it is",
    ),
    span(
        5,
        "execute_tool refund",
        2,
        start=1800,
        end=2200,
        gen_ai__operation__name="execute_tool",
        gen_ai__tool__name="refund",
        links=[{"traceId": "ab" * 16, "spanId": "cd" * 8}],
        events=[{"timeUnixNano": str(BEGAN_NS + 1_900_000_000), "name": "booked", "attributes": []}],
    ),
    call(6, 2, start=2200, end=2800),
    span(8, "follow-up", 77, start=2850, end=2950, gen_ai__operation__name="invoke_agent"),
]
"""A call that failed and was made again, one without usage, what an agent tells beyond them, and a parent
that was never sent."""

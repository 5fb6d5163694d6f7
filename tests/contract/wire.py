"""What contract tests share: flows that run offline, and HTTP as bytes, without our client or codecs."""

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from runglass.limits.memory import MemoryBudget
from runglass.store.keys import digest_of
from runglass.store.records import ApiKey, RunRecord
from runglass.testing import RunningServer
from runglass.wire.run_api import ExecuteRequest
from tests.records import there
from tests.waiting import eventually

WORDS = """
slug: words
inputs:
  type: object
  properties: {message: {type: string}, times: {type: integer}}
  required: [message]
steps:
  - id: split
    name: Split into words
    type: code
    code: |
      return {"words": message.split()}
  - id: each
    type: loop
    over: words
    as: word
    steps:
      - id: say
        type: llm
        model: echo
        prompt: "{{ word }}"
      - id: shout
        type: code
        retry: {max_attempts: 2, initial_delay_ms: 0}
        code: |
          if attempt == 1 and index == 1:
              raise ValueError("not yet")
          return {"text": text.upper()}
  - id: route
    type: condition
    if: len(items) > 1
    then: [{id: many, type: passthrough}]
    else: [{id: few, type: passthrough}]
"""

GRID = """
slug: grid
steps:
  - id: rows
    type: loop
    over: initial["rows"]
    as: row
    steps:
      - id: columns
        type: loop
        over: row
        as: cell
        steps:
          - id: cell
            type: code
            retry: {max_attempts: 2, initial_delay_ms: 0}
            code: |
              if attempt == 1 and cell == 11:
                  raise ValueError("once")
              return {"cell": cell, "attempt": attempt}
"""

BROKEN = """
slug: broken
steps:
  - {id: fine, type: passthrough}
  - {id: bad, type: code, code: 'raise ValueError("it broke")'}
"""

ANYTHING = "slug: anything\nsteps: [{id: keep, type: passthrough}]\n"

ENDLESS = """
slug: endless
steps:
  - {id: first, type: passthrough}
  - {id: hold, type: wait, ms: 600000}
"""

BRISK = """
slug: brisk
steps:
  - {id: one, type: wait, ms: 20}
  - {id: two, type: wait, ms: 20}
  - {id: three, type: wait, ms: 20}
"""

FLOWS = [WORDS, GRID, BROKEN, ANYTHING, ENDLESS, BRISK]
LONGEST_S = 60.0
"""So long a test waits for what must come, on the busiest machine."""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def http_at(address: str, key: str | None) -> httpx2.Client:
    """A plain HTTP client of the API at this address, with this key."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.Client(base_url=f"{address}/api/v1", headers=headers, timeout=LONGEST_S)


def http_for(server: RunningServer, key: str | None) -> httpx2.Client:
    """The same for a server of this process."""
    return http_at(server.address, key)


def read(http: httpx2.Client, path: str, **query: Any) -> dict[str, Any]:
    """What is answered to a good question."""
    answer = http.get(path, params=query or None)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def pages(http: httpx2.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    """Every page from the first on, each asked for with the cursor of the one before."""
    found = [read(http, path, **query)]
    while "nextCursor" in found[-1]:
        assert found[-1]["nextCursor"] is not None
        found.append(read(http, path, **query, cursor=found[-1]["nextCursor"]))
    return found


def execute(http: httpx2.Client, slug: str, **body: Any) -> str:
    """Runs a flow of `acme/demo` to its good end; its execution id."""
    answer = http.post(f"/seq/acme/demo/{slug}/execute", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["executionId"])


def ran(http: httpx2.Client, slug: str, *, headers: dict[str, str] | None = None, **body: Any) -> str:
    """Runs a flow of `acme/demo` to whatever end; its execution id."""
    answer = http.post(f"/seq/acme/demo/{slug}/execute", json=body, headers=headers).json()
    return str(answer.get("detail", answer)["executionId"])


def known_key(server: RunningServer, key: str) -> ApiKey:
    """What the server knows of a key that it has made."""
    return there(server.call(server.runtime.store.find_key(digest_of(key))))


def stored_run(server: RunningServer, run_id: str) -> RunRecord:
    """A run as the server's store has it."""
    return there(server.call(server.runtime.store.run(run_id)))


def set_budget(server: RunningServer, usd: str | None, *, project: str = "demo") -> None:
    """What the project of `acme` may spend; None for as much as it wants."""
    store = server.runtime.store
    found = server.call(store.ensure_project("acme", project))
    server.call(store.set_budget(found.id, None if usd is None else Decimal(usd)))


def start(server: RunningServer, slug: str, **parameters: Any) -> str:
    """Starts a run of `acme/demo` and does not wait for it."""
    runtime, request = server.runtime, ExecuteRequest(parameters=parameters)
    project = server.call(runtime.store.ensure_project("acme", "demo"))
    submitted = runtime.submit(project, slug, request, version=None, trigger_type="api")
    return server.call(submitted).run.id


def until_event(http: httpx2.Client, execution_id: str, event: str, *, nth: int = 1) -> None:
    """Returns when the run has so many events of this type."""
    with http.stream("GET", f"/flow-runs/{execution_id}/trace/stream") as stream:
        found = (line for line in stream.iter_lines() if line == f"event: {event}")
        for _ in range(nth):
            next(found)


def cancel(server: RunningServer, execution_id: str) -> None:
    with http_for(server, server.key) as http:
        assert http.delete(f"/flow-runs/{execution_id}").status_code == 202


def requests_in(server: RunningServer) -> int:
    """How many requests are being answered."""

    async def counted() -> int:
        return sum("run_asgi" in repr(task.get_coro()) for task in asyncio.all_tasks())

    return server.call(counted())


def waiting_in(server: RunningServer) -> int:
    """How many runs wait for a slot."""
    return server.call(server.runtime.store.queued_runs(0, most=99)).waiting


def until_health(address: str, *statuses: str) -> dict[str, Any]:
    """What `/health` says once its status is one of these; a write is tried once a second."""

    def said() -> dict[str, Any] | None:
        answer = httpx2.get(f"{address}/health", timeout=LONGEST_S)
        told: dict[str, Any] = answer.json()
        assert (answer.status_code == 503) is (told["status"] == "unavailable")
        return told if told["status"] in statuses else None

    return eventually(said)


@contextmanager
def half_sent(
    server: RunningServer, patch: pytest.MonkeyPatch, path: str, body: bytes, *, key: str | None = None
) -> Iterator[socket.socket]:
    """A connection on which the server reads the body of a call, all but whose last byte has been sent."""
    begun, receiving = threading.Event(), MemoryBudget.receiving

    def noted(bodies: MemoryBudget, project_id: int) -> Any:
        begun.set()
        return receiving(bodies, project_id)

    patch.setattr(MemoryBudget, "receiving", noted)
    with raw_connection(server) as connection:
        head = head_of(server, "POST", f"/api/v1{path}", f"Content-Length: {len(body)}", key=key)
        connection.sendall(head + body[:-1])
        assert begun.wait(LONGEST_S)
        yield connection


def detail(answer: httpx2.Response) -> dict[str, Any]:
    """What an error answer says, once its shape has been checked."""
    body = answer.json()
    assert list(body) == ["detail"]
    found: dict[str, Any] = body["detail"]
    assert re.fullmatch(r"[A-Z_]+", found["code"])
    assert isinstance(found["message"], str)
    assert found["message"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    return found


def refusal(answer: httpx2.Response, *said: str) -> tuple[int, str]:
    """Status and code of an error answer, in whose message all of this is said."""
    told = detail(answer)
    assert all(each in told["message"] for each in said), told["message"]
    return answer.status_code, told["code"]


def as_listed(flow_run: dict[str, Any]) -> dict[str, Any]:
    """A run as lists have it: with previews in place of its input and its result."""
    return {name: value for name, value in flow_run.items() if name not in ("input", "result")}


class Frame:
    """One server-sent event as it stood in the stream; `id` is empty where it had none."""

    def __init__(self, block: str) -> None:
        fields = [line.split(": ", 1) for line in block.split("\n")]
        if fields[0][0] != "id":
            fields.insert(0, ["id", ""])
        assert [name for name, _ in fields] == ["id", "event", "data"], block
        self.id, self.event, data = (value for _, value in fields)
        self.data: dict[str, Any] = json.loads(data)


def frames(stream: str) -> list[Frame]:
    """The events in a stream, whose first line must be `retry`; pings are left out."""
    head, *blocks = stream.split("\n\n")
    assert head == "retry: 1000"
    assert blocks.pop() == "", "the stream broke off inside a frame"
    return [Frame(block) for block in blocks if block != ": ping"]


def events_of(http: httpx2.Client, execution_id: str) -> list[Frame]:
    """The events in the stream of a run, once it has ended."""
    return frames(http.get(f"/flow-runs/{execution_id}/trace/stream").text)


def log_of(http: httpx2.Client, execution_id: str) -> list[Frame]:
    """The events of a run up to its end, of whose numbers none is left out."""
    found = events_of(http, execution_id)
    assert [frame.id for frame in found] == [str(number) for number in range(1, len(found) + 1)]
    return found


def trace_of(http: httpx2.Client, execution_id: str) -> dict[str, Any]:
    return read(http, f"/flow-runs/{execution_id}/trace")


def walked(http: httpx2.Client, path: str, **body: Any) -> list[Frame]:
    """The events in the answer to a call of `step`."""
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream"
    return frames(answer.text)


def types(found: list[Frame]) -> list[str]:
    return [frame.event for frame in found]


@contextmanager
def raw_connection(server: RunningServer, sent: bytes = b"") -> Iterator[socket.socket]:
    """A socket to the server, on which this has been sent, for what no HTTP client would send."""
    address = urlsplit(server.address)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 0), timeout=LONGEST_S) as connection:
        connection.sendall(sent)
        yield connection


def head_of(server: RunningServer, method: str, path: str, *headers: str, key: str | None = None) -> bytes:
    """The head of a request, with the server's key unless another is given."""
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {key or server.key}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def rest_of(connection: socket.socket) -> bytes:
    """All bytes until the server has closed the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            received += data
    return received


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer with a Content-Length."""
    with connection.makefile("rb") as received:
        status = int(received.readline().split()[1])
        headers = {}
        while line := received.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, received.read(int(headers["content-length"]))

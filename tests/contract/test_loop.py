"""Large bodies are worked on beside the event loop: whoever sends one keeps nobody else waiting."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx2
import msgspec
import pytest

import runglass.engine.workers.check_worker
import runglass.runtime.runtime
import runglass.server.calls.segments
import runglass.server.routes.jobs
from runglass.engine.journal.run_spec import SegmentSpec
from runglass.limits.offload import LARGE_BYTES
from runglass.testing import RunningServer
from tests.contract.wire import frames, refusal

PATH = "/seq/acme/demo/anything"
ROWS = [{"n": n} for n in range(100_000)]
"""Several times what counts as large as JSON, and many small parts."""

TWO = """
slug: two
inputs: {type: object, properties: {rows: {type: array, items: {type: object}}}}
steps: [{id: one, type: code, code: 'return {}'}, {id: two, type: code, code: 'return {}'}]
"""


@contextmanager
def watched(server: RunningServer, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The work on large values that was done on the server's event loop in the block."""
    found: list[str] = []

    async def thread() -> int:
        return threading.get_ident()

    loop = server.call(thread())

    def watch(owner: Any, name: str, size: Any) -> None:
        work = getattr(owner, name)

        def watching(*args: Any, **more: Any) -> Any:
            result = work(*args, **more)
            if threading.get_ident() == loop and size(result, *args) > LARGE_BYTES:
                found.append(name)
            return result

        patch.setattr(owner, name, watching)

    watch(msgspec.json, "decode", lambda _, data: len(data))
    watch(
        msgspec.json, "encode", lambda data, value: len(data) if isinstance(value, (SegmentSpec, list)) else 0
    )
    for module in (
        runglass.server.calls.segments,
        runglass.server.routes.jobs,
    ):
        watch(module, "normalize_messages", lambda _, asked: len(asked.messages or []) * 10)
    watch(runglass.runtime.runtime, "decode_stored_flow", lambda _, source: len(source))
    watch(runglass.engine.workers.check_worker, "check_inputs", lambda _, flow, inputs: len(str(inputs)))
    watch(
        runglass.engine.workers.check_worker,
        "apply_overrides",
        lambda _, flow, overrides: len(str(overrides)),
    )
    try:
        yield found
    finally:
        patch.undo()


BODIES = {
    "parameters": {"parameters": {"rows": ROWS}},
    "one text": {"parameters": {"text": "x" * 9_000_000}},
    "overrides": {"blockOverrides": {"keep": {"input": {"rows": ROWS[:70_000]}}}},
    "messages": {"messages": [{"role": "user", "content": "x"}] * 20_000},
}


@pytest.mark.parametrize("call", ["execute", "jobs", "v1/step"])
@pytest.mark.parametrize("body", BODIES)
def test_a_large_body_is_read_checked_and_stored_beside_the_loop(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, call: str, body: str
) -> None:
    content = json.dumps(BODIES[body], separators=(",", ":")).encode()
    headers = {"Idempotency-Key": str(uuid4()), "Content-Type": "application/json"}
    with watched(server, monkeypatch) as found:
        answer = http.post(f"{PATH}/{call}", content=content, headers=headers)
    assert answer.status_code in (200, 202), answer.text[:300]
    assert found == []


def test_a_large_resume_is_processed_beside_the_loop(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.push(TWO)
    first = frames(http.post("/seq/acme/demo/two/v1/step", json={}).text)
    content = json.dumps(
        {
            "executionId": first[0].data["executionId"],
            "stepIndex": 1,
            "accumulatedOutputs": {"one": {"rows": ROWS}},
        },
        separators=(",", ":"),
    ).encode()
    with watched(server, monkeypatch) as found:
        answer = http.post("/seq/acme/demo/two/v1/step", content=content)
    assert frames(answer.text)[-1].event == "flow_completed"
    assert found == []


def test_a_large_flow_is_decoded_beside_the_loop(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [{"id": f"s{n}", "type": "passthrough", "name": "x" * 200} for n in range(3000)]
    flow = json.dumps({"slug": "large", "steps": steps}).encode()
    assert http.put("/flows/acme/demo/large", content=flow).status_code == 200
    assert http.post("/flows/acme/demo/large/publish").status_code == 200
    runglass.runtime.runtime.decode_stored_flow.cache_clear()
    with watched(server, monkeypatch) as found:
        answer = http.post("/seq/acme/demo/large/execute", json={"executionId": "no uuid"})
    assert refusal(answer) == (400, "EXECUTION_ID_INVALID")
    assert found == []

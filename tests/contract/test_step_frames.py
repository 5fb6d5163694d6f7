"""The frames of `/step` that are no events of the log: outputs that it does not keep, and a bad end."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import uuid4

import httpx2
import pytest

from runglass.config.settings import Price
from runglass.engine.steps.interpreter import Interpreter
from runglass.testing import RunningServer, running_server
from tests.contract.test_stepping import call, types
from tests.contract.wire import Frame, frames, http_for, set_budget
from tests.faulty_store import FaultyStore
from tests.waiting import eventually

MODES = ["off", "metadata_only", "redacted", "full"]
OUTPUT = """
slug: output-{name}
capture: "{mode}"
steps:
  - {{id: a, type: code, code: 'return {{"token": "sk-0123456789abcdef0123456789", "text": "x" * 2000}}'}}
  - {{id: l, type: loop, over: "[1, 2]", steps: [{{id: inner, type: passthrough}}]}}
"""
TOLERANT = """
slug: tolerant-walk
steps:
  - {id: lame, type: code, on_error: continue, code: 'raise ValueError("no")'}
  - {id: hold, name: Hold on, type: wait, ms: 600000}
"""


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    server.push(TOLERANT)
    for mode in MODES:
        server.push(OUTPUT.format(name=mode.replace("_", "-"), mode=mode))


def path_of(slug: str) -> str:
    return f"/seq/acme/demo/{slug}/step"


@pytest.mark.parametrize("mode", MODES)
def test_a_caller_reads_its_outputs_from_step_output_in_every_mode(http: httpx2.Client, mode: str) -> None:
    """Whole and as they are, once before each `step_completed`; the log keeps what it keeps."""
    found = call(http, path_of(f"output-{mode.replace('_', '-')}"), runRemaining=True)
    whole = {"token": "sk-0123456789abcdef0123456789", "text": "x" * 2000}
    told = [frame for frame in found if frame.event == "step_output"]
    assert [frame.data["outputData"] for frame in told] == [
        whole, {"item": 1, "index": 0}, {"item": 2, "index": 1},
    ]  # fmt: skip
    for frame in told:
        after = found[found.index(frame) + 1]
        assert after.event == "step_completed"
        assert frame.data["outputContext"] == frame.data["outputData"] == after.data["output"]
        assert frame.data["stepId"] == after.data["stepId"]
        assert frame.data.get("loopIndex") == after.data.get("loopIndex")
        assert frame.data["at"] <= after.data["at"]
    in_log = mode in ("redacted", "full")
    assert [frame.id != "" for frame in told] == [in_log] * 3
    assert [frame.data["seq"] > 0 for frame in told] == [in_log] * 3
    numbered = [frame.id for frame in found if frame.id]
    assert numbered == [str(n) for n in range(1, len(numbered) + 1)]
    run = found[0].data["executionId"]
    log = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    assert [frame.id for frame in log] == numbered, "the trace's stream has the log alone"
    if mode != "full":
        assert "sk-0123456789abcdef0123456789" not in "".join(str(frame.data) for frame in log)


def test_a_cancelled_step_through_ends_with_a_step_error(http: httpx2.Client) -> None:
    """Also behind a `step_error` that the run went on after, which tells of another thing."""
    with ThreadPoolExecutor(1) as calls:
        walk = calls.submit(call, http, path_of("tolerant-walk"), runRemaining=True)
        (listed,) = eventually(lambda: http.get("/flow-runs?flow=tolerant-walk").json()["runs"])
        run = listed["id"]
        eventually(lambda: '"hold"' in http.get(f"/flow-runs/{run}/trace").text)
        assert http.delete(f"/flow-runs/{run}").status_code == 202
        found = walk.result()
    assert [name for name in types(found) if name in ("step_error", "flow_cancelled")] == [
        "step_error", "step_error", "flow_cancelled",
    ]  # fmt: skip
    assert types(found)[-1] == "flow_cancelled"
    told = found[-2]
    assert (told.event, told.id, told.data["seq"]) == ("step_error", "", 0)
    assert (told.data["stepId"], told.data["name"], told.data["stepIndex"]) == ("hold", "Hold on", 1)
    assert told.data["attempt"] == 1
    assert told.data["error"]["code"] == "CANCELLED"
    assert found[-1].data["reason"] in told.data["error"]["message"]
    log = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    assert types(log).count("step_error") == 1, "the log tells what happened and nothing else"
    assert [frame.id for frame in log] == [frame.id for frame in found if frame.id]


def bad_end(found: list[Frame]) -> Frame:
    """The one `step_error` of an answer, right before the event that ends the run."""
    assert types(found)[-2:] == ["step_error", "flow_failed"]
    assert types(found).count("step_error") == 1
    return found[-2]


COSTLY = """
slug: costly
steps:
  - {id: pay, type: llm, model: echo, prompt: hello}
  - id: l
    type: loop
    over: "[1]"
    steps: [{id: never, name: Never, type: passthrough}]
"""


def test_a_spent_budget_ends_the_stream_with_a_step_error() -> None:
    """Of the step that was not begun, which no event of the log has named before."""
    prices = {"echo": Price(input_per_mtok=Decimal(1000), output_per_mtok=Decimal(1000))}
    with running_server(prices=prices) as server, http_for(server, server.key) as http:
        server.push(COSTLY)

        set_budget(server, "0.002")
        told = bad_end(call(http, path_of("costly"), runRemaining=True))
        place = {name: told.data[name] for name in ("stepId", "name", "stepIndex", "attempt")}
        assert place == {"stepId": "never", "name": "Never", "stepIndex": 1, "attempt": 1}
        assert told.data["error"]["code"] == "RUN_FAILED"
        assert told.data["error"]["error"]["code"] == "CREDITS_EXHAUSTED"
        assert "budget" in told.data["error"]["message"]


@pytest.mark.parametrize("key", [False, True], ids=["plain", "under a key"])
def test_a_failure_of_the_engine_itself_ends_the_stream_with_a_step_error(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, key: bool
) -> None:
    """At the step that the run came to last, or at its first one where it came to none."""

    async def breaks(self: Interpreter) -> None:
        raise LookupError("not of any step")

    path, headers = path_of("output-full"), {"Idempotency-Key": str(uuid4())} if key else {}
    run = str(call(http, path)[0].data["executionId"])
    monkeypatch.setattr(Interpreter, "walk", breaks)
    later = http.post(path, json={"executionId": run, "stepIndex": 1}, headers=headers)
    told = bad_end(frames(later.text))
    assert (told.id, told.data["stepId"], told.data["stepIndex"]) == ("", "a", 0)
    assert told.data["error"]["code"] == "RUN_FAILED"
    assert told.data["error"]["error"]["code"] == "INTERNAL_ERROR"
    told = bad_end(call(http, path))
    assert told.data["stepId"] == "a"
    if key:
        again = http.post(path, json={"executionId": run, "stepIndex": 1}, headers=headers)
        assert again.text == later.text


def test_outputs_that_are_too_many_to_be_held_come_from_the_store(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    read_back = faults.calls("owed")
    steps = "\n".join(
        f'  - {{id: s{n}, type: code, code: \'return {{"t": "{n}" * 700000}}\'}}' for n in range(5)
    )
    server.push(f"slug: too-much\ncapture: off\nsteps:\n{steps}\n")
    with http.stream("POST", path_of("too-much"), json={"runRemaining": True}) as answer:
        eventually(lambda: http.get("/flow-runs?flow=too-much&status=completed").json()["runs"])
        found = frames(answer.read().decode())
    told = [frame.data["outputData"]["t"] for frame in found if frame.event == "step_output"]
    assert told == [str(n) * 700_000 for n in range(5)]
    assert read_back

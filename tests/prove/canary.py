"""`prove canary`: what a capture mode does not keep is in no file of the data folder once nobody is owed it.

Every place of a run that can hold content gets a mark of its own, in every mode and on every way through the
server; the server is killed in the middle and started again. When all has ended and answers have expired, the
bytes of every file are searched. Beside each mark stands a second one that looks like a secret.
"""

import base64
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from tests.contract.wire import log_of, until_event
from tests.e2e.command import fill, served
from tests.waiting import eventually

MODES: dict[str, dict[str, Any]] = {
    "off": {"capture": "off", "capture_failed": "full", "capture_sample": 1},
    "metadata_only": {"capture": "metadata_only"},
    "failed_redacted": {"capture": "metadata_only", "capture_failed": "redacted"},
    "failed_full": {"capture": "metadata_only", "capture_failed": "full"},
    "redacted": {"capture": "redacted", "capture_failed": "full", "capture_sample": 1},
    "full": {"capture": "full"},
}
"""Names of what is kept, each with the fields of its flow; beside `off` and `redacted` stand some in vain."""
STEPS = [
    {"id": "ask", "type": "llm", "model": "echo", "prompt": "{{ message }}"},
    {"id": "work", "type": "code", "code": 'return {"said": text}'},
    {"id": "hold", "type": "wait", "ms": 1},
    {"id": "end", "type": "code", "input": {}, "code": 'return steps["work"]'},
]
PREFIX = "c4n4ry"
WAIT_S = 30.0
HELD_MS = 1500
"""Long enough to be killed in, and over by the time that the next server is ready."""

ALWAYS = ("input", "parameter", "prompt", "history", "attachment", "system")
"""The places that each run has; what a model says is its prompt here, so that is in an output, too."""
WAYS: dict[str, tuple[str, ...]] = {
    "success": (*ALWAYS, "output"),
    "failure": (*ALWAYS, "error", "printed"),
    "late failure": (*ALWAYS, "error", "output"),
    "retry": (*ALWAYS, "error", "output"),
    "tool pause": (*ALWAYS, "tool", "arguments", "result", "output"),
    "repeat": (*ALWAYS, "output"),
    "job": (*ALWAYS, "output"),
    "walk": (*ALWAYS, "override", "edited", "output"),
    "failed walk": (*ALWAYS, "error", "printed"),
    "crash": (*ALWAYS, "output"),
    "cancel": (*ALWAYS, "output"),
}
OF_FAILED_RUNS = frozenset({"input", "parameter", "history", "attachment"})
"""The run's own input, as its caller gave it."""
OF_FAILURES: dict[str, frozenset[str]] = {
    "failure": OF_FAILED_RUNS | {"prompt", "error", "printed"},
    "late failure": OF_FAILED_RUNS | {"error"},
    "retry": frozenset({"input", "prompt", "error"}),
    "failed walk": OF_FAILED_RUNS | {"prompt", "error", "printed"},
    # The attempt that was cut off is the one that had the output before it as its input.
    "crash": frozenset({"output"}),
    "cancel": frozenset({"output"}),
}


IN_FINISHED_STEPS = frozenset({"input", "prompt", "output"})
"""What is in the outputs of the steps before a late failure."""


class Mark(NamedTuple):
    """Where a canary was put; `secret` is the one that looks like an e-mail address."""

    mode: str
    way: str
    place: str
    secret: bool


class Marks:
    """All canaries, and where each of them belongs."""

    def __init__(self) -> None:
        self._all: list[Mark] = []

    def plain(self, mode: str, way: str, place: str, *, secret: bool = False) -> str:
        assert place in WAYS[way], place
        mark = Mark(mode, way, place, secret)
        if mark not in self._all:
            self._all.append(mark)
        return f"{PREFIX}{self._all.index(mark):05}"

    def both(self, mode: str, way: str, place: str) -> str:
        secret = self.plain(mode, way, place, secret=True)
        return f"{self.plain(mode, way, place)} {secret}@example.com"

    def missing(self) -> set[tuple[str, str, str]]:
        every = {(mode, way, place) for mode in MODES for way, places in WAYS.items() for place in places}
        return every - {mark[:3] for mark in self._all}

    def found_in(self, folder: Path) -> set[Mark]:
        """The canaries that are in any file, in whatever encoding."""
        found: set[Mark] = set()
        for path in sorted(folder.rglob("*")):
            data = path.read_bytes() if path.is_file() else b""
            found |= {self._all[int(number)] for number in re.findall(rf"{PREFIX}(\d{{5}})".encode(), data)}
            for name, spelling in SPELLINGS.items():
                assert spelling not in data, f"a canary is in {path.name}, written as {name}"
        return found


def _spellings() -> dict[str, bytes]:
    plain = PREFIX.encode()
    spellings = {
        "UTF-16": PREFIX.encode("utf-16-le"),
        "hexadecimal": plain.hex().encode(),
        "hexadecimal, upper case": plain.hex().upper().encode(),
        "JSON escapes": "".join(f"\\u{ord(letter):04x}" for letter in PREFIX).encode(),
    }
    for ahead in range(3):
        # The characters that also depend on what stands before or after are left out.
        written = base64.b64encode(b"\0" * ahead + plain)
        whole = len(plain) + ahead - (len(plain) + ahead) % 3
        spellings[f"Base64, {ahead} bytes on"] = written[(0, 2, 3)[ahead] : whole // 3 * 4]
    return spellings


SPELLINGS = _spellings()


def must_be_found(mark: Mark) -> bool:
    mode, way, place, secret = mark
    if mode == "off" or (mode == "redacted" and (secret or place == "printed")):
        return False
    if mode in ("redacted", "full") or place in OF_FAILURES.get(way, ()):
        return True
    if way == "late failure" and place in IN_FINISHED_STEPS:
        return mode == "failed_full" or (mode == "failed_redacted" and not secret)
    return False


class Caller:
    """Sends the runs of one way in one mode."""

    def __init__(self, http: httpx2.Client, marks: Marks, mode: str, way: str) -> None:
        self.http = http
        self._marks = marks
        self._mode, self._way = mode, way
        self.path = f"/seq/acme/shop/{_slug(mode)}"
        self.headers = {"Idempotency-Key": f"{mode} {way}"}

    def text(self, place: str) -> str:
        return self._marks.both(self._mode, self._way, place)

    def body(self, code: str, **work: Any) -> dict[str, Any]:
        """A request with a mark wherever a request can have one; `code` and `work` go to the second step."""
        url = f"https://example.com/{self._marks.plain(self._mode, self._way, 'attachment')}.png"
        return {
            "messages": [
                {"role": "user", "content": self.text("history")},
                {"role": "assistant", "content": "go on"},
                {"role": "user", "content": self.text("input")},
            ],
            "parameters": {"note": self.text("parameter")},
            "attachments": [{"url": url, "mimeType": "image/png"}],
            "blockOverrides": {
                "ask": {"prompt": "{{ message }} " + self.text("prompt"), "system": self.text("system")},
                "work": {"code": code, **work},
            },
        }

    def good(self) -> dict[str, Any]:
        return self.body(f"return {json.dumps({'made': self.text('output')})}")

    def bad(self) -> dict[str, Any]:
        # The code itself is an override, which is told: what it prints is put together while it runs.
        printed = json.dumps(self.text("printed")).replace(PREFIX, f'{PREFIX[:3]}" + "{PREFIX[3:]}')
        return self.body(f"print({printed})\nraise ValueError({json.dumps(self.text('error'))})")

    def post(
        self, what: str, body: dict[str, Any], *, status: int = 200, key: bool = False
    ) -> httpx2.Response:
        answer = self.http.post(f"{self.path}/{what}", json=body, headers=self.headers if key else {})
        assert answer.status_code == status, answer.text
        return answer

    def held(self, ms: int) -> str:
        """The id of a job that has come to its last step, which takes so long."""
        body = self.good()
        body["blockOverrides"]["hold"] = {"ms": ms}
        run = str(self.post("jobs", body, status=202).json()["executionId"])
        until_event(self.http, run, "step_started", nth=3)
        return run


def success(caller: Caller) -> None:
    assert caller.post("execute", caller.good()).json()["result"]["made"] == caller.text("output")


def failure(caller: Caller) -> None:
    answer = caller.post("execute", caller.bad(), status=500)
    assert caller.text("error") in answer.text, "the caller gets the whole error"


def late_failure(caller: Caller) -> None:
    body = caller.good()
    body["blockOverrides"]["end"] = {"code": f"raise ValueError({json.dumps(caller.text('error'))})"}
    caller.post("execute", body, status=500)


def retry(caller: Caller) -> None:
    error, output = json.dumps(caller.text("error")), json.dumps({"made": caller.text("output")})
    code = f"if attempt == 1:\n    raise ValueError({error})\nreturn {output}"
    caller.post("execute", caller.body(code, retry={"max_attempts": 2, "initial_delay_ms": 0}))


def tool_pause(caller: Caller) -> None:
    parameters = {"properties": {"q": {"const": caller.text("arguments")}}, "required": ["q"]}
    function = {"name": "look", "description": caller.text("tool"), "parameters": parameters}
    tools = [{"type": "function", "function": function}]
    paused = caller.post("execute", {**caller.good(), "tools": tools}, key=True).json()
    assert caller.text("arguments") in paused["toolCalls"][0]["function"]["arguments"]
    results = [{"toolCallId": call["id"], "output": caller.text("result")} for call in paused["toolCalls"]]
    done = caller.post("execute", {**paused, "toolCallMessages": [*paused["toolCallMessages"], *results]})
    assert done.json()["status"] == "completed"


def repeat(caller: Caller, *, status: int = 200) -> None:
    first, second = (caller.post("execute", caller.good(), status=status, key=True).text for _ in range(2))
    assert first == second


def job(caller: Caller) -> str:
    run = str(caller.post("jobs", caller.good(), status=202, key=True).json()["executionId"])
    assert log_of(caller.http, run)[-1].event == "flow_completed"
    return run


def walk(caller: Caller) -> None:
    told = caller.post("step", caller.good(), key=True).text
    run = told.split('"executionId":"')[1][:36]
    body: dict[str, Any] = {
        "executionId": run,
        "stepIndex": 1,
        "runRemaining": True,
        "accumulatedOutputs": {"ask": {"text": caller.text("edited")}},
        "inputOverrides": {"more": caller.text("override")},
    }
    caller.headers = {"Idempotency-Key": f"{run} 1"}
    told = caller.post("step", body, key=True).text
    assert told == caller.post("step", body, key=True).text
    assert "flow_completed" in told
    assert caller.text("output") in told


def failed_walk(caller: Caller) -> None:
    told = caller.post("step", {**caller.bad(), "runRemaining": True}, key=True).text
    assert told.count(caller.text("error")) >= 2, "the caller gets the whole error"


def cancel(caller: Caller) -> None:
    assert caller.http.delete(f"/flow-runs/{caller.held(600_000)}").status_code == 202


TO_THE_END: dict[str, Callable[[Caller], object]] = {
    go.__name__.replace("_", " "): go
    for go in (success, failure, late_failure, retry, tool_pause, repeat, job, walk, failed_walk, cancel)
}


def canary() -> list[str]:
    """Goes every way in every mode. Raises AssertionError where a mark is, or is not, against the mode."""
    with tempfile.TemporaryDirectory(prefix="runglass-canary-") as name:
        folder, marks = Path(name), Marks()
        key = fill(folder, *({"slug": _slug(mode), **how, "steps": STEPS} for mode, how in MODES.items()))
        with served(folder, key) as (process, http):
            gone = {
                (mode, way): go(Caller(http, marks, mode, way))
                for mode in MODES
                for way, go in TO_THE_END.items()
            }
            crashed = [Caller(http, marks, mode, "crash").held(HELD_MS) for mode in MODES]
            process.kill()
        assert not marks.missing(), marks.missing()
        found = marks.found_in(folder)
        for way in ("crash", "repeat", "job", "walk"):
            mark = Mark("off", way, "output", secret=False)
            assert mark in found, "what a run or a caller needs still is stored, so that it can be found here"
        # The runs that were cut off end, and answers expire.
        with served(folder, key, env={"RUNGLASS_ANSWER_TTL_S": "0.5"}) as (process, http):
            for run in crashed:
                assert log_of(http, run)[-1].event == "flow_completed"
            over_s = time.monotonic() + WAIT_S
            # What is wrong even then is told below.
            eventually(lambda: not _wrong(marks.found_in(folder), too_many=True) or time.monotonic() > over_s)
            for mode in MODES:
                repeat(Caller(http, marks, mode, "repeat"), status=410)
                polled = http.get(f"/seq/acme/shop/{_slug(mode)}/jobs/{gone[mode, 'job']}")
                assert polled.status_code == (200 if mode == "full" else 410), polled.text
            assert process.interrupt() == 0
        found = marks.found_in(folder)
        wrong = _wrong(found)
        assert not wrong, "\n".join(wrong)
    return [
        f"{len(WAYS)} ways in {len(MODES)} modes: {len(found)} marks are in files of the data folder,"
        " each where its mode keeps it, and none elsewhere"
    ]


def _wrong(found: set[Mark], *, too_many: bool = False) -> list[str]:
    """The marks that are where they must not be, and, but for what is only `too_many`, that lack."""
    every = [
        Mark(mode, way, place, secret)
        for mode in MODES
        for way, places in WAYS.items()
        for place in places
        for secret in (False, True)
        if not (secret and place == "attachment")
    ]
    return [
        f"{mark} is {'' if mark in found else 'not '}in the files"
        for mark in every
        if must_be_found(mark) != (mark in found) and (mark in found or not too_many)
    ]


def _slug(mode: str) -> str:
    return f"canary-{mode.replace('_', '-')}"

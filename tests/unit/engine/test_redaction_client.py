"""Large values are redacted in a process like here; what its limits end is not kept, and the run goes on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from runglass.config.settings import Settings
from runglass.engine.capture.capture import Capture
from runglass.engine.capture.redaction_client import RedactionClient
from runglass.engine.capture.redaction_worker import RedactionReply, RedactionRequest, answered
from runglass.engine.capture.snapshots import shortened, shortened_error
from runglass.engine.payload import Payload
from runglass.redact import Redactor
from tests.waiting import until

REDACTOR = Redactor(extra_keys=["colour"], extra_patterns=["ACME-[0-9]+"])
SECRETS = ("hunter2", "ACME-4711", "crimson", "a.b@example.com")
LIMIT_BYTES = 2_000


def large(**more: Any) -> dict[str, Any]:
    row = {"password": "hunter2", "note": "ACME-4711, a.b@example.com", "colour": "crimson", "n": 1.5}
    return {"rows": [row] * 2_000, **more}


@pytest.fixture
async def redactions() -> AsyncIterator[RedactionClient]:
    async with RedactionClient() as redactions:
        yield redactions


def capture(redactions: RedactionClient | None, *, limit_bytes: int = LIMIT_BYTES) -> Capture:
    return Capture("redacted", limit_bytes=limit_bytes, redactor=REDACTOR, redactions=redactions)


@pytest.mark.parametrize("limit_bytes", [256, LIMIT_BYTES, 1 << 30])
@pytest.mark.parametrize(
    "value", [large(), large(text="\\u0070assword: hunter2 é…"), {"plain": "x " * 70_000}]
)
async def test_a_process_redacts_byte_for_byte_like_the_event_loop(
    redactions: RedactionClient, value: dict[str, Any], limit_bytes: int
) -> None:
    payload = Payload(value)
    await capture(redactions, limit_bytes=limit_bytes).prepare(payload)
    assert redactions.idle
    snapshot = capture(redactions, limit_bytes=limit_bytes).snapshot(payload)
    kept = bytes(snapshot.data or b"")
    here = shortened(msgspec.json.encode(value), value, limit_bytes=limit_bytes, redactor=REDACTOR)
    assert (kept, snapshot.truncated) == here
    assert not any(secret.encode() in kept for secret in SECRETS)


@pytest.mark.parametrize(
    ("detail", "given", "kept"),
    [
        pytest.param(
            {"code": "CODE_ERROR", "message": "hunter2 ACME-1", "printed": "hunter2", "line": 3},
            [large(), {"more": 1}],
            {"code": "CODE_ERROR", "message": "[redacted] [redacted]", "line": 3},
            id="with the secrets of a large input",
        ),
        pytest.param(
            {"code": "CODE_ERROR", "message": "ACME-4711 " * 20_000},
            [{}],
            {"code": "CODE_ERROR", "message": "[redacted] " * 20_000},
            id="a long one, however little was given",
        ),
    ],
)
async def test_a_process_redacts_an_error(
    redactions: RedactionClient, detail: dict[str, Any], given: list[dict[str, Any]], kept: dict[str, Any]
) -> None:
    made = await capture(redactions, limit_bytes=1 << 20).error_of(detail, list(map(Payload, given)))
    assert redactions.idle
    assert bytes(made) == shortened_error(detail, given, limit_bytes=1 << 20, redactor=REDACTOR)
    assert msgspec.json.decode(made) == kept


async def test_small_values_and_other_modes_start_no_process(redactions: RedactionClient) -> None:
    small = Payload({"password": "hunter2"})
    await capture(redactions).prepare(small)
    await capture(redactions).error_of({"code": "X"}, [small])
    for mode in ("off", "metadata_only", "full"):
        other = Capture(mode, redactions=redactions)
        await other.prepare(Payload(large()))
        await other.error_of({"code": "X"}, [Payload(large())])
    assert redactions.forker.pid is None


async def test_a_redactor_is_made_once_for_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def ask(redactor: Redactor) -> RedactionReply:
        message = RedactionRequest(msgspec.Raw(b'{"a":"ACME-4711"}'), None, 256, redactor.rules)
        return msgspec.json.decode(answered(msgspec.json.encode(message)), type=RedactionReply)

    assert bytes(ask(REDACTOR).captured) == b'{"a":"[redacted]"}'
    monkeypatch.setattr(Redactor, "__init__", lambda *_, **rules: made.append(rules))
    assert bytes(ask(REDACTOR).captured) == b'{"a":"[redacted]"}'
    assert not made


def note_of(capture: Capture, payload: Payload) -> str:
    snapshot = capture.snapshot(payload)
    kept = bytes(snapshot.data or b"")
    assert not any(secret.encode() in kept for secret in SECRETS)
    assert snapshot.truncated
    assert snapshot.size_bytes == payload.size_bytes
    note = msgspec.json.decode(kept)
    assert list(note) == ["…"]
    return str(note["…"])


async def kept_of(redactions: RedactionClient, payload: Payload) -> tuple[str, dict[str, Any]]:
    """What is told in place of a value and of an error that are not kept."""
    own = capture(redactions)
    await own.prepare(payload)
    detail = {"code": "CODE_ERROR", "message": "hunter2", "exception": "ValueError", "line": 3}
    error = await own.error_of(detail, [payload])
    assert b"hunter2" not in bytes(error)
    return note_of(own, payload), msgspec.json.decode(error)


async def test_a_large_value_whose_run_was_cut_off_meanwhile_is_not_redacted_on_the_loop(
    redactions: RedactionClient,
) -> None:
    assert "its run was interrupted" in note_of(capture(redactions), Payload(large()))


async def test_a_value_whose_process_is_killed_is_not_kept(redactions: RedactionClient) -> None:
    # So much takes a process long enough to be met at it.
    payload = Payload({"text": "+49 170 1234567, password: hunter2\n" * 30_000})
    own = capture(redactions)
    preparing = asyncio.create_task(own.prepare(payload))
    await until(lambda: redactions.busy)
    for process in redactions.busy:
        process.kill()
    await preparing
    assert "it took too much memory or time to redact" in note_of(own, payload)


async def test_a_value_that_takes_too_much_memory_is_not_kept() -> None:
    async with RedactionClient(Settings(redaction_memory_limit_bytes=128 << 20)) as redactions:
        payload = Payload({"password": "hunter2", "rows": [[n] for n in range(800_000)]})
        note, error = await kept_of(redactions, payload)
    assert "setting redaction_memory_limit_bytes" in note
    assert "setting redaction_memory_limit_bytes" in error.pop("message")
    assert error == {"code": "CODE_ERROR", "type": "ValueError", "line": 3}


async def test_where_no_process_starts_nothing_is_kept(
    redactions: RedactionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Mock(side_effect=BlockingIOError("no more processes"))
    monkeypatch.setattr("runglass.engine.workers.process.subprocess.Popen", refused)
    note, error = await kept_of(redactions, Payload(large()))
    assert "no process for redaction starts" in note
    assert "no process for redaction starts" in error["message"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        # No JSON, so that decoding raises what nobody expects.
        (b'{"a":"hunter2","b":0e}', "could not be redacted"),
        (b'{"a":"hunter2","b":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep a recursion"),
    ],
    ids=["a fault in the process", "too deep"],
)
async def test_what_cannot_be_redacted_is_not_kept(
    redactions: RedactionClient, value: bytes, why: str
) -> None:
    kept, truncated = await redactions.shortened(value, limit_bytes=LIMIT_BYTES, redactor=REDACTOR)
    assert truncated
    assert b"hunter2" not in kept
    assert why in msgspec.json.decode(kept)["…"]


async def test_a_pattern_that_is_late_in_a_process_is_logged_once(
    redactions: RedactionClient, caplog: pytest.LogCaptureFixture
) -> None:
    own = Capture("redacted", redactor=Redactor(extra_patterns=["(x|xx)+y"]), redactions=redactions)
    for _ in range(2):
        payload = Payload({"text": "x" * 70_000})
        await own.prepare(payload)
        assert own.snapshot(payload).data == msgspec.Raw(b'{"text":"[redacted]"}')
    assert ["takes too long" in record.getMessage() for record in caplog.records] == [True]

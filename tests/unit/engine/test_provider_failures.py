"""How a run takes the failures of its provider: what is asked again, told, and kept of an answer."""

from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from pydantic_ai.exceptions import UserError

from runglass.config.settings import Settings
from runglass.engine.models import provider_requests
from runglass.engine.models.gateway import ModelCallFailed, ModelGateway
from runglass.errors import RETRY_AFTER, StoreError
from runglass.log.events import StepRetrying
from runglass.wire.run_api import CaptureMode
from tests.fakes import VirtualClock
from tests.faulty_store import FaultyStore
from tests.ports import free_port
from tests.unit.engine.bench import EngineBench, engine_bench_with, open_engine_bench
from tests.unit.engine.conftest import end_in_next_life, open_harness
from tests.unit.engine.fake_models import ANSWER, FakeModels
from tests.unit.engine.fake_provider import COMPATIBLE, DONE, KEY, Reply, chunk, error_reply

ASK = "- {id: ask, type: llm, model: 'local:tiny', prompt: Hello, settings: {stream: true}}"
PATIENT = ASK[:-1] + ", retry: {max_attempts: 5, initial_delay_ms: 1, max_delay_ms: 60000}}"
GOOD = COMPATIBLE.reply("Hi")
HALF = chunk({"content": "Good mor"})

bench = engine_bench_with()


REFUSALS = [307, 400, 401, 402, 403, 404, 405, 413, 418, 422, 451, 499]
MAY_PASS = ("PROVIDER_UNAVAILABLE", "RATE_LIMITED")
ERRORS = [
    # By its words pydantic-ai takes it for a server that may have time later.
    *((status, "overloaded", "PROVIDER_ERROR") for status in REFUSALS),
    *((status, None, "PROVIDER_UNAVAILABLE") for status in (408, 409, 425, 500, 502, 503, 504, 529)),
    (429, None, "RATE_LIMITED"),
    (429, "insufficient_quota", "PROVIDER_ERROR"),
    (401, None, "BYOK_KEY_REJECTED"),
    (403, None, "BYOK_KEY_REJECTED"),
    (404, "model_not_found", "MODEL_NOT_SUPPORTED"),
]
"""Statuses with the code that the provider gives beside them, and what is told of that."""


@pytest.mark.parametrize("flow", [ASK, PATIENT], ids=["no retry", "retry"])
@pytest.mark.parametrize(("status", "said", "code"), ERRORS)
async def test_an_error_status_is_understood_and_asked_again_only_where_it_may_pass(
    bench: EngineBench, status: int, said: str | None, code: str, flow: str
) -> None:
    ran = await bench.run(flow, error_reply(status, f"{said}, with {KEY}", code=said), GOOD)
    attempt = ran.attempts["ask"][0]
    if code in MAY_PASS:
        assert (ran.outcome.status, len(bench.fake.requests)) == ("completed", 2)
    else:
        assert (ran.outcome.status, len(bench.fake.requests)) == ("failed", 1)
        assert attempt.model_calls[0].cost_unknown is None, "it costs nothing"
    error = dict(attempt.error_context or {})
    told = f"(model 'local:tiny', status {status}): {said}, with [key]"
    message = error.pop("message")
    assert f" at {bench.fake.base_url} " in message
    assert message.endswith(told)
    assert KEY not in repr(ran.events)
    assert "could not be reached" not in message
    assert error == {
        "code": code,
        "provider": "local",
        "model": "local:tiny",
        "status": status,
        "address": bench.fake.base_url,
        "providerMessage": f"{said}, with [key]",
    }


async def test_the_same_server_error_twice_ends_the_attempts_and_another_status_or_body_does_not(
    bench: EngineBench,
) -> None:
    errors = [(500, "one"), (500, "two"), (502, "two"), (500, "one")]
    others = [error_reply(status, words) for status, words in errors]
    ran = await bench.run(PATIENT, *others, GOOD)
    assert (ran.outcome.status, len(bench.fake.requests)) == ("completed", 5)
    ran = await bench.run(PATIENT, *others[:2], others[1], GOOD)
    assert (ran.outcome.status, len(bench.fake.requests)) == ("failed", 5 + 3)
    assert ran.error["message"].endswith("two; not retried, since the previous attempt got the same answer")


@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_a_provider_that_says_how_long_it_is_busy_is_asked_then(
    bench: EngineBench, status: int
) -> None:
    busy = error_reply(status, "slow down", headers={"retry-after": "7"})
    # The same answer twice would else be the last one.
    ran = await bench.run(PATIENT, busy, busy, error_reply(429, "slow down"), GOOD)
    assert (ran.outcome.status, len(bench.fake.requests)) == ("completed", 4)
    retrying = [event for event in ran.events if isinstance(event, StepRetrying)]
    assert [(event.error or {}).get("retryAfterMs") for event in retrying] == [7000, 7000, None]
    assert [event.delay_ms for event in retrying] == [7000, 7000, 4]


async def test_the_wait_that_a_provider_asked_for_outlives_the_process(tmp_path: Path) -> None:
    """Also where no content is kept. The process dies before it asks again."""
    busy = ModelCallFailed("RATE_LIMITED", "busy", may_be_charged=False, details={RETRY_AFTER: 5000})
    async with open_harness(tmp_path / "db", models=FakeModels(busy)) as house:
        FaultyStore(house.store).die(at_append=4)
        started = await house.start(ASK, capture="off")
        with pytest.raises(StoreError):
            await started.outcome()
    clock = VirtualClock()
    await clock.sleep(2)
    models = FakeModels(ANSWER)
    ran = await end_in_next_life(tmp_path / "db", started.id, clock=clock, models=models)
    assert ran.attempts["ask"][0].error_context == {"code": "RATE_LIMITED", RETRY_AFTER: 5000}
    assert (ran.trace.flow_run.status, models.calls) == ("completed", 1)
    assert max(clock.slept_s) == pytest.approx(3)


async def test_a_provider_that_is_not_there_could_not_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_url = f"http://127.0.0.1:{free_port()}/v1"
    async with open_engine_bench(tmp_path, monkeypatch, providers={"local": base_url}) as bench:
        ran = await bench.run(ASK)
    assert ran.error["message"] == (
        f"provider 'local' at {base_url} could not be reached (model 'local:tiny'): "
        "nobody listens there (connection refused)"
    )
    assert (ran.error["address"], ran.step("ask").attempt) == (base_url, 3)


@pytest.mark.parametrize(("timeout_ms", "waits_s"), [(600_000, None), (3_600_000, 4200)])
async def test_a_client_waits_for_an_answer_at_least_as_long_as_its_step(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch, timeout_ms: int, waits_s: int | None
) -> None:
    asked = AsyncMock(side_effect=UserError("enough"))
    monkeypatch.setattr(provider_requests, "model_request", asked)
    await bench.run(ASK.replace("stream: true}", f"stream: false}}, timeout_ms: {timeout_ms}"))
    (call,) = asked.await_args_list
    assert call.kwargs["model_settings"].get("timeout") == waits_s


@pytest.mark.parametrize("fault", [KeyError("token_uri"), ValueError("no login")], ids=repr)
async def test_a_fault_before_anything_is_sent_is_not_the_caller_s(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    monkeypatch.setattr(provider_requests, "model_request", AsyncMock(side_effect=fault))
    ran = await bench.run(ASK.replace("true", "false"))
    assert (ran.error["code"], bench.fake.requests) == ("INTERNAL_ERROR", [])
    assert f"{type(fault).__name__}: {fault}" in caplog.text


BROKEN = {
    "cut": Reply(body=HALF, cut=True),
    "no end": Reply(body=HALF),
    "no reason": Reply(body=HALF + DONE),
    "error inside": Reply(body=HALF + b'data: {"error": {"message": "gpu on fire"}}\n\n'),
    "garbled": Reply(body=HALF + b"data: {nonsense\n\n"),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
async def test_an_answer_that_broke_off_is_in_its_attempt(bench: EngineBench, reply: Reply) -> None:
    ran = await bench.run(ASK + "\n", reply, GOOD)
    assert ran.outcome.status == "completed"
    first, _ = ran.attempts["ask"]
    (call,) = first.model_calls
    assert call.response == {"role": "assistant", "content": "Good mor"}
    assert (call.error_code, call.finish_reason, call.streamed) == ("PROVIDER_UNAVAILABLE", None, True)
    assert (first.status, first.finish_reason) == ("failed", None)
    error: Any = first.error_context
    assert (error["address"], bench.fake.base_url in error["message"]) == (bench.fake.base_url, True)
    assert "could not be reached" not in error["message"]
    assert ran.totals.finish_reasons == {"stop": 1}


WORDS = chunk({"content": "mail eve@ada.org"})
ANSWERS = {
    "good": Reply(body=WORDS + chunk({}, finish="stop") + DONE),
    "refused": error_reply(400, "no"),
    "broken": Reply(body=WORDS, cut=True),
    "of no use": Reply(body=WORDS + chunk({}, finish="content_filter") + DONE),
}


@pytest.mark.parametrize(
    ("capture", "answer", "keeps_request", "keeps_answer"),
    [
        ("off", "good", False, False),
        ("off", "broken", False, False),
        ("metadata_only", "good", False, False),
        ("metadata_only", "refused", True, False),
        ("metadata_only", "broken", True, True),
        ("metadata_only", "of no use", True, True),
        ("redacted", "good", True, True),
        ("redacted", "broken", True, True),
        ("full", "good", True, True),
        ("full", "refused", True, False),
    ],
)
async def test_content_of_a_call_is_kept_by_the_capture_mode(
    bench: EngineBench, capture: CaptureMode, answer: str, keeps_request: bool, keeps_answer: bool
) -> None:
    flow = ASK.replace("Hello", "Greet ada@ada.org")[:-1] + ", retry: {max_attempts: 1}}"
    ran = await bench.run(flow, ANSWERS[answer], capture=capture)
    (call,) = ran.calls
    assert (call.request is not None, call.response is not None) == (keeps_request, keeps_answer)
    assert (call.error_code is None, call.model) == (answer == "good", "local:tiny")
    found = repr([ran.events, call, ran.step("ask").input_context])
    assert ("Greet" in found) == ("Greet" in repr(call.request)) == keeps_request
    assert ("mail" in found) == ("mail" in repr(call.response)) == keeps_answer
    is_plain = capture in ("metadata_only", "full")
    assert ("ada@ada.org" in found) == (keeps_request and is_plain)
    assert ("eve@ada.org" in found) == (keeps_answer and is_plain)


async def test_what_was_said_before_a_cancel_is_in_the_attempt(bench: EngineBench) -> None:
    bench.fake.replies.append(Reply(body=HALF, silent=True))
    started = await bench.house.start(ASK)
    # The starts and inputs of run and step, and the first piece of the answer.
    await bench.house.follow(started.id, until=5)
    bench.house.engine.active.cancel(started.id, reason="enough")
    (call,) = (await bench.house.read(started.id, await started.outcome())).calls
    await bench.fake.until_all_left()
    assert (call.error_code, call.finish_reason) == ("CANCELLED", None)
    assert call.response == {"role": "assistant", "content": "Good mor"}


async def test_a_key_is_looked_for_where_it_may_be_missing_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-from-the-environment")
    settings = Settings(providers={"own": "http://127.0.0.1:9/v1"}, provider_keys={"groq": "gsk"})
    async with ModelGateway(settings) as models:
        for model in ("echo", "own:m", "groq:m", "deepseek:deepseek-chat", "nobody:knows"):
            assert await models.missing_key(model) is None
        missing = await models.missing_key("openai:gpt-4o-mini")
        # The environment of a process does not change; a provider is looked at once.
        monkeypatch.setenv("OPENAI_API_KEY", "sk-too-late")
        assert await models.missing_key("openai:gpt-5") == missing
    assert missing is not None
    assert "OPENAI_API_KEY" in missing

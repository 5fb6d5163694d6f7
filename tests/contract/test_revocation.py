"""Within a second after a key is revoked, by any process, all open responses to it end."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import pytest

from runglass.limits.offload import LARGE_BYTES
from runglass.runtime.runtime import PROMPT_S
from runglass.testing import RunningServer
from tests.contract import wire
from tests.contract.test_tool_calls import TALK, TOOLS, results_of, resumption
from tests.faulty_store import Held
from tests.servers import served
from tests.waiting import eventually

Revoke = Callable[[int], None]


@pytest.fixture(params=["over HTTP", "by another process"])
def revoke(request: pytest.FixtureRequest, server: RunningServer, http: httpx2.Client) -> Revoke:
    """Revokes a key: in the server, or behind its back in the database."""

    def over_http(key_id: int) -> None:
        assert http.delete(f"/keys/{key_id}").status_code == 200

    def behind_its_back(key_id: int) -> None:
        project_id = wire.known_key(server, server.key).project_id
        server.call(server.runtime.store.revoke_key(project_id, key_id))

    return over_http if request.param == "over HTTP" else behind_its_back


def endless(http: httpx2.Client) -> list[str]:
    """The runs of `endless` that go on."""
    return [run["id"] for run in http.get("/flow-runs?flow=endless&status=running").json()["runs"]]


def made(server: RunningServer) -> tuple[str, int]:
    """A new key, and its id."""
    key = server.make_key("acme", "demo", "run")
    return key, wire.known_key(server, key).id


def test_streams_end_without_a_further_event_and_are_not_resumed(
    server: RunningServer, revoke: Revoke
) -> None:
    run = wire.start(server, "endless")
    trace = f"/flow-runs/{run}/trace/stream"
    (key, key_id), (other, _) = made(server), made(server)
    with ExitStack() as opened:

        def stream(key: str, path: str, up_to: str) -> Iterator[str]:
            """What comes after this text."""
            client = opened.enter_context(wire.http_for(server, key))
            parts = opened.enter_context(client.stream("GET", path)).iter_text()
            seen = ""
            while up_to not in seen:
                seen += next(parts)
            return parts

        # The last that comes of a run of `endless`.
        streams = [stream(key, trace, '"stepId":"hold","attempt":1,"inputData":') for _ in range(3)]
        streams.append(stream(key, "/flow-runs/stream", "id: "))
        stays = stream(other, trace, "id: ")
        revoke(key_id)
        assert not any("event:" in "".join(parts) for parts in streams)
        with wire.http_for(server, key) as left:
            assert wire.refusal(left.get(trace, headers={"Last-Event-ID": "1"})) == (401, "UNAUTHENTICATED")
        wire.cancel(server, run)
        assert "event: flow_cancelled" in "".join(stays)


def test_calls_that_wait_are_answered_a_step_through_ends_and_their_runs_go_on(
    server: RunningServer, http: httpx2.Client, revoke: Revoke
) -> None:
    key, key_id = made(server)
    headers = {"Idempotency-Key": f"call of {key_id}"}
    path, body = "/seq/acme/demo/endless/execute", {"parameters": {"key": key_id}}
    with wire.http_for(server, key) as caller, ThreadPoolExecutor(3) as calls:
        stepped = calls.submit(caller.post, "/seq/acme/demo/endless/step", json={"runRemaining": True})
        (walk,) = eventually(lambda: endless(http))
        first = calls.submit(caller.post, path, json=body, headers=headers)
        eventually(lambda: len(endless(http)) == 2)
        # It waits for the outcome of the first one.
        again = calls.submit(caller.post, path, json=body, headers=headers)
        eventually(lambda: wire.requests_in(server) == 3)
        revoke(key_id)
        answers = [first.result(wire.LONGEST_S), again.result(wire.LONGEST_S)]
        told = stepped.result(wire.LONGEST_S)
    (run,) = set(endless(http)) - {walk}
    for answer in answers:
        assert wire.refusal(answer, "the run itself continues") == (401, "UNAUTHENTICATED")
        assert wire.detail(answer)["executionId"] == run
        assert answer.headers["www-authenticate"] == "Bearer"
    assert told.status_code == 200
    assert not {"event: step_error", "event: flow_cancelled"} & set(told.text.splitlines())
    assert walk in endless(http)
    wire.cancel(server, walk)
    wire.cancel(server, run)
    # That a key ended is nothing that the call came to: another key of the project gets what it did.
    repeated = http.post(path, json=body, headers=headers)
    assert wire.refusal(repeated) == (500, "STEP_FAILED")
    assert wire.detail(repeated)["executionId"] == run


def test_a_large_answer_breaks_off(server: RunningServer, http: httpx2.Client) -> None:
    key, key_id = made(server)
    run = wire.execute(http, "grid", parameters={"rows": [["x" * 200_000] * 40]})
    whole = len(http.get(f"/flow-runs/{run}/trace").content)
    with wire.http_for(server, key) as caller, caller.stream("GET", f"/flow-runs/{run}/trace") as answer:
        parts = answer.iter_raw(65536)
        got = [next(parts)]
        http.delete(f"/keys/{key_id}").raise_for_status()
        with pytest.raises(httpx2.RemoteProtocolError):
            got.extend(parts)
    assert len(b"".join(got)) < whole


def test_a_resume_in_the_line_goes_on_when_its_key_is_revoked() -> None:
    with served(TALK, wire.ENDLESS, capture="full", max_concurrent_runs=1) as (server, http):
        key, key_id = made(server)
        with wire.http_for(server, key) as caller, ThreadPoolExecutor(1) as calls:
            body = caller.post("/seq/acme/demo/talk/execute", json={"message": "hi", "tools": TOOLS}).json()
            holds = wire.start(server, "endless")
            resume = resumption(body, results_of(body))
            waits = calls.submit(caller.post, "/seq/acme/demo/talk/execute", json=resume)
            eventually(lambda: wire.waiting_in(server))
            http.delete(f"/keys/{key_id}")
            answer = waits.result(wire.LONGEST_S)
        assert wire.refusal(answer, "the run itself continues") == (401, "UNAUTHENTICATED")
        assert wire.refusal(http.post("/seq/acme/demo/talk/execute", json=resume)) == (409, "RUN_NOT_PAUSED")
        wire.cancel(server, holds)
        assert wire.events_of(http, body["executionId"])[-1].event == "flow_completed"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/keys", b'{"role": "admin"}'),
        ("/seq/acme/demo/anything/execute", b"{}"),
        ("/seq/acme/demo/anything/jobs", b"{}"),
        ("/seq/acme/demo/anything/step", b"{}"),
    ],
)
def test_a_body_that_ends_after_its_key_was_revoked_does_nothing(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes
) -> None:
    """Who sends slowly would else start a run, or make itself another key, for as long as a body may take."""
    key = server.make_key("acme", "demo", "admin")
    clock = server.runtime.store.clock
    now_s = clock.monotonic_s
    with wire.half_sent(server, monkeypatch, path, body, key=key) as connection:
        # That of a body that comes at once is not looked up again.
        monkeypatch.setattr(clock, "monotonic_s", lambda: now_s() + PROMPT_S)
        assert http.delete(f"/keys/{wire.known_key(server, key).id}").status_code == 200
        before = keys_and_runs(http)
        connection.sendall(body[-1:])
        status, _, told = wire.read_answer(connection)
    assert status == 401
    assert b"UNAUTHENTICATED" in told
    assert keys_and_runs(http) == before


@pytest.mark.parametrize("way", ["execute", "jobs", "step"])
def test_a_request_that_was_checked_until_after_its_key_was_revoked_starts_nothing(
    server: RunningServer, http: httpx2.Client, checking: Held, way: str
) -> None:
    key, key_id = made(server)
    with wire.http_for(server, key) as caller, ThreadPoolExecutor(1) as calls:
        # Of a small one that is checked at once the key is not looked up again.
        large = {"parameters": {"text": "x" * LARGE_BYTES}}
        call = calls.submit(caller.post, f"/seq/acme/demo/anything/{way}", json=large)
        checking.until_reached()
        http.delete(f"/keys/{key_id}")
        before = keys_and_runs(http)
        checking.let_go()
        answer = call.result(wire.LONGEST_S)
    assert wire.refusal(answer, "while its request was checked; nothing was done") == (401, "UNAUTHENTICATED")
    assert keys_and_runs(http) == before


def test_a_repeated_call_does_not_wait_for_the_first_one_when_its_key_is_revoked(
    server: RunningServer, http: httpx2.Client, checking: Held
) -> None:
    key, key_id = made(server)
    again = {"Idempotency-Key": "both"}
    with wire.http_for(server, key) as caller, ThreadPoolExecutor(2) as calls:
        first = calls.submit(http.post, "/seq/acme/demo/anything/execute", json={}, headers=again)
        checking.until_reached()
        repeat = calls.submit(caller.post, "/seq/acme/demo/anything/execute", json={}, headers=again)
        eventually(lambda: wire.requests_in(server) == 2)
        http.delete(f"/keys/{key_id}")
        assert wire.refusal(repeat.result(wire.LONGEST_S)) == (401, "UNAUTHENTICATED")
        checking.let_go()
        assert first.result(wire.LONGEST_S).json()["status"] == "completed"


def keys_and_runs(http: httpx2.Client) -> tuple[list[int], list[str]]:
    keys, runs = http.get("/keys").json()["keys"], http.get("/flow-runs").json()["runs"]
    return [key["id"] for key in keys], [run["id"] for run in runs]

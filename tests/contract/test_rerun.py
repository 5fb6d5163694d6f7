"""`POST …/rerun`: a new run from the input that another one kept."""

from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.test_run_input import MODES, push, run_of, slug
from tests.contract.wire import as_listed, frames, refusal


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    for mode in MODES:
        push(server, mode)


def again(http: httpx2.Client, run: str, **body: Any) -> dict[str, Any]:
    """The `flowRun` of the new run, once it has ended."""
    answer = http.post(f"/flow-runs/{run}/rerun", json=body)
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    assert sorted(accepted) == ["blockCount", "executionId", "flowId", "rerunOf", "status"]
    assert (accepted["status"], accepted["blockCount"], accepted["rerunOf"]) == ("pending", 2, run)
    return ended(http, accepted["executionId"])


def ended(http: httpx2.Client, run: str) -> dict[str, Any]:
    stream = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    flow_run: dict[str, Any] = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
    assert stream[0].data.get("rerunOf") == flow_run.get("rerunOf")
    return flow_run


def test_a_new_run_has_the_same_input_and_says_of_which_it_is(http: httpx2.Client) -> None:
    image = {"url": "https://example.com/a.png", "mimeType": "image/png"}
    messages = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "well"}]
    run = run_of(
        http,
        "full",
        messages=[*messages, {"role": "user", "content": "now"}],
        parameters={"more": [1]},
        attachments=[image],
    )
    before, after = ended(http, run), again(http, run)
    assert after["id"] != run
    assert (after["rerunOf"], after["triggerType"], after["status"]) == (run, "replay", "completed")
    assert "rerunOf" not in before
    for same in ("flowId", "version", "input", "inputPreview", "result"):
        assert after[same] == before[same], same
    (listed,) = [each for each in http.get("/flow-runs").json()["runs"] if each["id"] == after["id"]]
    assert listed == as_listed(after)


def test_a_run_that_failed_can_be_run_again_under_metadata_only(http: httpx2.Client) -> None:
    run = run_of(http, "metadata_only", message="fail")
    after = again(http, run)
    assert (after["status"], after["input"]) == ("failed", {"inputs": {"message": "fail"}})
    by_slug = http.post(f"/seq/acme/demo/{slug('metadata_only')}/runs/{run}/rerun")
    assert by_slug.status_code == 202, "without a body, and below the flow"
    assert ended(http, by_slug.json()["executionId"])["rerunOf"] == run


def test_the_version_is_the_same_unless_another_one_is_named(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = run_of(http, "full", message="Ada")
    first = ended(http, run)["version"]
    push(server, "full", "Thank")
    found = {
        version: again(http, run, version=version) for version in ("same", "production", first, first + 1)
    }
    told = {version: (each["version"], each["result"]["text"]) for version, each in found.items()}
    assert told == {
        "same": (first, "Greet Ada"),
        "production": (first + 1, "Thank Ada"),
        first: (first, "Greet Ada"),
        first + 1: (first + 1, "Thank Ada"),
    }
    assert refusal(http.post(f"/flow-runs/{run}/rerun", json={"version": 99})) == (404, "VERSION_NOT_FOUND")
    versions = [{"version": version} for version in ("draft", -1, 10**30)]
    for bad in (*versions, {"version": None, "message": "x"}, {"versoin": 1}, []):
        assert refusal(http.post(f"/flow-runs/{run}/rerun", json=bad)) == (422, "INVALID_REQUEST"), bad


def test_overrides_are_those_of_the_new_call(server: RunningServer, http: httpx2.Client) -> None:
    overrides = {"ask": {"prompt": "Scold {{ message }}"}}
    run = run_of(http, "full", message="Ada", blockOverrides=overrides)
    assert "Scold" not in again(http, run)["result"]["text"]
    after = again(http, run, blockOverrides={"ask": {"prompt": "Praise {{ message }}"}})
    assert after["result"]["text"] == "Praise Ada"
    assert after["overridden"] == ["ask.prompt"]
    refused = http.post(f"/flow-runs/{run}/rerun", json={"blockOverrides": {"nothing": {}}})
    assert refusal(refused) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("mode", "message", "why"),
    [
        ("off", "fail", "capture mode off"),
        ("metadata_only", "fine", "of failed runs alone"),
        ("redacted", "from ada@example.com", "redacted"),
        ("full", "x" * 300_000, "snapshot_limit_bytes"),
    ],
)
def test_what_was_not_kept_whole_is_refused_with_the_reason(
    http: httpx2.Client, mode: str, message: str, why: str
) -> None:
    run = run_of(http, mode, message=message)
    before = http.get("/flow-runs").json()["runs"][0]["id"]
    assert refusal(http.post(f"/flow-runs/{run}/rerun", json={}), why) == (409, "INPUT_NOT_KEPT")
    assert http.get("/flow-runs").json()["runs"][0]["id"] == before, "nothing was started"


def test_an_input_without_secrets_is_whole_where_the_mode_is_redacted(
    server: RunningServer, http: httpx2.Client
) -> None:
    push(server, "redacted", "Greet ada@example.com, who is")
    run = run_of(http, "redacted", message="Ada")
    assert "[redacted]" in ended(http, run)["result"]["text"]
    assert again(http, run)["input"] == {"inputs": {"message": "Ada"}}


def test_a_repeat_under_its_key_starts_nothing(http: httpx2.Client) -> None:
    run = run_of(http, "full", message="Ada")
    key = {"Idempotency-Key": f"again {run}"}
    first, second = (http.post(f"/flow-runs/{run}/rerun", json={}, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    other = http.post(f"/flow-runs/{run}/rerun", json={"version": "production"}, headers=key)
    assert refusal(other) == (409, "IDEMPOTENCY_MISMATCH")
    one, two = (http.post(f"/flow-runs/{run}/rerun", json={}).json()["executionId"] for _ in range(2))
    assert one != two
    for each in (first.json()["executionId"], one, two):
        ended(http, each)

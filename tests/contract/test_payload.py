"""What is kept of a step's input, output and error, by itself: whole, in ranges of bytes, and not at all."""

import json
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import ANYTHING, BROKEN, GRID, detail, execute, refusal
from tests.servers import server_with

BIG = """
slug: big
steps:
  - {id: make, type: code, code: 'return {"text": "é" * 600_000}'}
"""


# One that keeps large content whole.
server = server_with(ANYTHING, BROKEN, GRID, BIG, capture="full", snapshot_limit_bytes=10_000_000)


@pytest.fixture(scope="module")
def kept(http: httpx2.Client) -> str:
    """The path of the content of a step, whose output is as its input."""
    run = execute(http, "anything", parameters={"text": "größer", "list": [1, 2.5, None]})
    return f"/flow-runs/{run}/steps/keep/payload"


def test_content_is_as_in_the_trace_in_both_forms_of_the_path(http: httpx2.Client, kept: str) -> None:
    run = kept.split("/")[2]
    trace = http.get(f"/flow-runs/{run}/steps/keep/trace")
    for path in (kept, f"/seq/acme/demo/anything/runs/{run}/steps/keep/payload"):
        for part in ("input", "output"):
            answer = http.get(path, params={"part": part})
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            assert answer.headers["accept-ranges"] == "bytes"
            assert answer.json() == trace.json()[f"{part}Context"]
            assert answer.content in trace.content
    assert http.get(kept).content == http.get(f"{kept}?part=output").content


def test_large_content_comes_whole_and_joins_from_its_ranges(http: httpx2.Client) -> None:
    path = f"/flow-runs/{execute(http, 'big')}/steps/make/payload"
    whole = http.get(path)
    assert whole.headers["content-length"] == str(len(whole.content))
    assert whole.json() == {"text": "é" * 600_000}
    joined, step = b"", 500_000
    while len(joined) < len(whole.content):
        headers = {"Range": f"bytes={len(joined)}-{len(joined) + step - 1}"}
        part = http.get(path, headers=headers | {"If-Range": whole.headers["etag"]})
        assert part.status_code == 206
        first, joined = len(joined), joined + part.content
        assert part.headers["content-range"] == f"bytes {first}-{len(joined) - 1}/{len(whole.content)}"
    assert joined == whole.content
    changed = http.get(path, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, whole.content)
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=9999999-"}):
        head = http.head(path, headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
        assert head.headers["etag"] == whole.headers["etag"]


def test_a_range_beyond_the_end_what_is_known_and_what_there_is_not_are_told_apart(
    http: httpx2.Client, kept: str
) -> None:
    whole = http.get(kept)
    size, tag = len(whole.content), whole.headers["etag"]
    beyond = http.get(kept, headers={"Range": f"bytes={size}-"})
    assert refusal(beyond, str(size)) == (416, "INVALID_REQUEST")
    assert beyond.headers["content-range"] == f"bytes */{size}"
    known = http.get(kept, headers={"If-None-Match": tag, "Range": "bytes=0-1"})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    assert http.get(kept, headers={"If-None-Match": '"another"'}).status_code == 200
    assert refusal(http.get(f"{kept}?part=error")) == (404, "CONTENT_NOT_KEPT")
    assert refusal(http.get(f"{kept}?attempt=7")) == (404, "STEP_NOT_FOUND")
    assert refusal(http.get(kept.replace("keep", "none"))) == (404, "STEP_NOT_FOUND")


SECRET = "sk-ant-api03-" + "a1B2" * 24


@pytest.mark.parametrize("mode", ["off", "metadata_only", "redacted", "full"])
def test_no_mode_gives_more_than_it_keeps(server: RunningServer, http: httpx2.Client, mode: str) -> None:
    slug = f"kept-{mode.replace('_', '-')}"
    server.push(
        f"slug: {slug}\ncapture: {mode}\nsteps:\n"
        "  - {id: fine, type: passthrough}\n"
        "  - {id: bad, type: code, code: 'raise ValueError(\"it broke\")'}\n"
    )
    answer = http.post(f"/seq/acme/demo/{slug}/execute", json={"parameters": {"api_key": SECRET}})
    run = detail(answer)["executionId"]

    def content(step: str, part: str) -> Any:
        answer = http.get(f"/flow-runs/{run}/steps/{step}/payload", params={"part": part})
        trace = http.get(f"/flow-runs/{run}/steps/{step}/trace").json()
        if answer.status_code == 404:
            assert detail(answer)["code"] == "CONTENT_NOT_KEPT"
            assert mode in detail(answer)["message"]
            assert f"{part}Context" not in trace
            return None
        assert answer.json() == trace[f"{part}Context"]
        return answer.json()

    keeps_outputs = mode in ("redacted", "full")
    for part in ("input", "output"):
        found = content("fine", part)
        assert (found is not None) == keeps_outputs
        assert (SECRET in json.dumps(found)) == (mode == "full")
    assert (content("bad", "input") is not None) == (mode != "off")
    assert content("bad", "output") is None
    assert ("message" in content("bad", "error")) == (mode != "off")


def test_a_trace_of_an_attempt_leaves_out_what_is_larger_than_asked_for(http: httpx2.Client) -> None:
    run = execute(http, "big")
    path = f"/flow-runs/{run}/steps/make/trace"
    whole = http.get(path)
    short = http.get(path, params={"part_bytes": "2000"})
    size = len(http.get(f"/flow-runs/{run}/steps/make/payload").content)
    expected = {name: value for name, value in whole.json().items() if name != "outputContext"}
    assert short.json() == expected | {"leftOut": {"output": size}}
    assert (
        http.get(path, params={"part_bytes": str(size)}).json()["outputContext"]
        == whole.json()["outputContext"]
    )

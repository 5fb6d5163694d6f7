"""Bodies of requests: where they are read, what is refused in them, and what was meant."""

import threading
from typing import Any

import msgspec
import pytest

from runglass.errors import APIError
from runglass.limits.offload import LARGE_BYTES
from runglass.server.requests.body_parsing import CALLS_WITH, parse_off_loop, read_request
from runglass.server.requests.did_you_mean import MAX_COMPARED, camel, near_miss, refuse_slips
from runglass.wire.run_api import ExecuteRequest, JobRequest, RunRequest, StepRequest


@pytest.mark.parametrize(("size", "here"), [(2, True), (LARGE_BYTES, True), (LARGE_BYTES + 1, False)])
async def test_a_large_body_is_read_in_a_thread(size: int, here: bool) -> None:
    thread = await parse_off_loop(lambda _: threading.get_ident(), b"x" * size)
    assert (thread == threading.get_ident()) is here


FOREIGN: dict[type[RunRequest], list[str]] = {
    ExecuteRequest: ["stepIndex", "inputOverrides", "runRemaining"],
    StepRequest: [],
    JobRequest: ["executionId", "toolCallMessages", "stepIndex", "inputOverrides", "runRemaining"],
}


@pytest.mark.parametrize("shape", FOREIGN)
def test_each_field_of_another_call_is_refused_or_without_effect(shape: type[RunRequest]) -> None:
    known = shape.__struct_encode_fields__
    for field in (field for field in CALLS_WITH if field not in known):
        assert read_request(msgspec.json.encode({field: 0}), shape) == shape()
        if field not in FOREIGN[shape]:
            assert read_request(msgspec.json.encode({field: "x"}), shape) == shape()
            continue
        with pytest.raises(APIError, match=f"`{field}` is a field of") as refused:
            read_request(msgspec.json.encode({field: "x"}), shape)
        assert (refused.value.code, refused.value.status) == ("INVALID_REQUEST", 422)


@pytest.mark.parametrize("nothing", [None, False, 0, 0.0, "", [], {}])
def test_a_field_of_another_call_that_says_nothing_is_ignored(nothing: Any) -> None:
    body = msgspec.json.encode({"message": "a", "runRemaining": nothing, "step_index": nothing})
    assert read_request(body, ExecuteRequest) == ExecuteRequest(message="a")


def test_a_misspelt_field_is_refused_among_any_number_of_unknown_ones() -> None:
    own = {f"field{number}": number for number in range(50)}
    assert read_request(msgspec.json.encode(own), JobRequest) == JobRequest()
    with pytest.raises(APIError, match="`tarce`: unknown field; did you mean 'trace'"):
        read_request(msgspec.json.encode({**own, "tarce": True}), JobRequest)


def test_numbers_that_take_long_to_read_are_refused_where_they_are_many() -> None:
    long, usual = "9" * 600, "1234567890"
    few = read_request(f'{{"parameters": {{"a": [{",".join([long] * 90)}]}}}}'.encode(), ExecuteRequest)
    assert (few.parameters or {})["a"] == [int(long)] * 90
    many = f'{{"parameters": {{"a": [{",".join([usual] * 20_000)}]}}}}'
    assert len((read_request(many.encode(), ExecuteRequest).parameters or {})["a"]) == 20_000
    with pytest.raises(APIError, match="more than 2,000,000 values"):
        read_request(f'{{"parameters": {{"a": [{",".join([long] * 5_000)}]}}}}'.encode(), ExecuteRequest)
    with pytest.raises(APIError, match="the request body is too complex"):
        read_request(f'{{"parameters": {{"a": [{",".join(["1e300"] * 20_000)}]}}}}'.encode(), ExecuteRequest)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mesage", "message"),
        ("messgae", "message"),
        ("messsage", "message"),
        ("massage", "message"),
        ("emssage", "message"),
        ("Message", "message"),
        ("trcae", "trace"),
        ("tracd", "trace"),
        ("tool", "tools"),
        ("parameter", "parameters"),
        ("parametres", "parameters"),
        ("blockoverrides", "blockOverrides"),
        ("BLOCK_OVERRIDES", "blockOverrides"),
        ("block-overrides", "blockOverrides"),
        ("blockOveride", "blockOverrides"),
        ("toolCallMessage", "toolCallMessages"),
    ],
)
def test_a_slip_is_near_the_name_that_was_meant(name: str, meant: str) -> None:
    assert near_miss(name, ExecuteRequest.__struct_encode_fields__) == meant


OWN = "status toolCalls flowId blockCount result runId stepId eventType at seq"
THEIRS = "messageId traceId sessionId userId metadata tags model input inputs version conversation_id"


@pytest.mark.parametrize("name", [*OWN.split(), *THEIRS.split(), "", "_", "é", "x" * 10_000])
def test_fields_of_answers_and_of_other_clients_are_near_nothing(name: str) -> None:
    assert near_miss(name, CALLS_WITH) is None


def test_a_misspelt_name_behind_known_and_unknown_names_is_found() -> None:
    names = ["limit", *(f"x{number}" for number in range(MAX_COMPARED - 1)), "limits"]
    with pytest.raises(APIError, match="`limits`: unknown parameter; did you mean 'limit'") as refused:
        refuse_slips(names, ["limit"], kind="parameter")
    assert refused.value.code == "INVALID_REQUEST"


def test_comparing_ends_after_so_many_unknown_names() -> None:
    refuse_slips([*(f"x{number}" for number in range(MAX_COMPARED)), "limits"], ["limit"], kind="parameter")


def test_a_name_in_camel_case() -> None:
    assert [camel(name) for name in ("loop_index", "loopIndex", "_x", "a_1")] == [
        "loopIndex",
        "loopIndex",
        "X",
        "a_1",
    ]

"""Which unknown names are slips of known ones, and which are somebody's own."""

import pytest

from runglass.errors import APIError
from runglass.server.requests.body_parsing import CALLS_WITH
from runglass.server.requests.did_you_mean import MAX_COMPARED, camel, near_miss, refuse_slips
from runglass.wire.run_api import ExecuteRequest


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

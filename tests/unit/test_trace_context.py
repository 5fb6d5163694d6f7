"""`traceparent` and `tracestate` as the recommendation reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.wire.run_api import MAX_STATE, read_trace_context

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def state(*sent: str) -> str | None:
    context = read_trace_context([PARENT], list(sent))
    assert context is not None
    assert context.parent == PARENT
    return context.state


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (["a=1,b=2"], "a=1,b=2"),
        (["a=1 ,\tb=2", "c=3"], "a=1,b=2,c=3"),
        (["tenant@vendor= inner blank"], "tenant@vendor= inner blank"),
        (["a"], None),
        (["A=1"], None),
        (["a=1,a=2"], None),
        (["a=\u00e9"], None),
        (["a=b=c"], None),
        ([",".join(f"k{n}=v" for n in range(32))], ",".join(f"k{n}=v" for n in range(32))),
        ([",".join(f"k{n}=v" for n in range(33))], None),
    ],
)
def test_a_state_is_taken_whole_or_not_at_all(sent: list[str], kept: str | None) -> None:
    assert state(*sent) == kept


@given(st.lists(st.integers(1, 256), min_size=1, max_size=32))
def test_a_long_state_is_cut_between_members(lengths: list[int]) -> None:
    members = [f"k{number}={'v' * length}" for number, length in enumerate(lengths)]
    kept = state(",".join(members))
    assert len(kept or "") <= MAX_STATE
    count = 0 if kept is None else kept.count(",") + 1
    assert (kept or "") == ",".join(members[:count])
    assert count == len(members) or len(",".join(members[: count + 1])) > MAX_STATE


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_malformed_header_of_any_text_counts_as_not_sent(parent: str, other: str) -> None:
    assert read_trace_context([parent], [other]) is None

"""Spans of two recorded runs, paired by their names in the tree."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from runglass.diff.alignment import align_spans
from runglass.diff.digest import AttemptDigest, read_digest
from tests.unit.test_span_outline import Span, stored


def digests(*spans: Span) -> list[AttemptDigest]:
    texts: dict[str, str] = {}
    return [read_digest(row[0], row[-1], texts) for row in stored(spans)]


def paired(a: Sequence[Span], b: Sequence[Span]) -> list[tuple[int | None, ...]]:
    """The ids of the pairs."""
    found = align_spans(digests(*a), digests(*b))
    return [
        tuple(None if each is None or each.span is None else int(each.span.id, 16) for each in pair)
        for pair in found
    ]


RUN = [
    Span(1, None, 0, name="agent"),
    Span(2, 1, 1, name="chat"),
    Span(3, 1, 2, name="search"),
    Span(4, 3, 3, name="chat"),
    Span(5, 1, 4, name="chat"),
]


def test_a_run_with_one_call_more_pairs_all_others_whatever_the_order_of_arrival() -> None:
    more = [
        Span(15, 11, 5, name="chat"),
        Span(16, 13, 4, name="rerank"),
        Span(12, 11, 1, name="chat"),
        Span(11, None, 0, name="agent"),
        Span(14, 13, 3, name="chat"),
        Span(13, 11, 2, name="search"),
    ]
    assert paired(RUN, more) == [(1, 11), (2, 12), (3, 13), (4, 14), (None, 16), (5, 15)]
    assert paired(more, RUN) == [(11, 1), (12, 2), (13, 3), (14, 4), (16, None), (15, 5)]


def test_a_call_more_at_the_beginning_moves_no_other_out_of_its_pair() -> None:
    def turns(first: int, *names: str) -> list[Span]:
        return [Span(first + at, None, at, name=name) for at, name in enumerate(names)]

    a, b = turns(1, "chat", "tool", "chat", "tool"), turns(11, "chat", "chat", "tool", "chat", "tool")
    assert paired(a, b) == [(None, 11), (1, 12), (2, 13), (3, 14), (4, 15)]
    assert paired(turns(1, "x", "y"), turns(11, "y", "x")) in ([(1, 12), (2, 11)], [(2, 11), (1, 12)])
    many = turns(1, *["chat"] * 300)
    assert paired(many, many[1:])[-1] == (300, None)


parents = st.integers(1, 8)
spans = st.tuples(
    st.integers(1, 6), st.none() | parents, st.integers(0, 2), st.just(2), st.sampled_from("ab")
)
runs = st.lists(spans.map(lambda about: Span(*about)), unique_by=lambda span: span.id)


@given(runs, runs)
def test_each_span_is_in_one_pair_whatever_cycles_there_are(a: list[Span], b: list[Span]) -> None:
    found = paired(a, b)
    assert sorted(each for each, _ in found if each is not None) == sorted(span.id for span in a)
    assert sorted(each for _, each in found if each is not None) == sorted(span.id for span in b)
    assert all(one == other for one, other in paired(a, a))


def test_deep_runs_are_paired() -> None:
    deep = [Span(at, at - 1 or None) for at in range(1, 20_000)]
    assert all(a == b for a, b in paired(deep, deep))

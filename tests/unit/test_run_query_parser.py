"""The query language and the headers of a trace: what is read, and what is said of what cannot be."""

from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.errors import APIError
from runglass.wire.query import Range
from runglass.wire.query_parser import MOST_CHARS, MOST_TERMS, MOST_VALUES, parse_run_query
from runglass.wire.run_api import MAX_STATE, read_trace_context
from tests.records import there

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)


def parsed(text: str) -> list[tuple[object, ...]]:
    """Field, values and whether it is negated, of each term."""
    return [
        (term.field, term.words or term.ranges, term.negated) for term in parse_run_query(text, now=NOW).terms
    ]


def refusal(text: str) -> tuple[str, int, str]:
    """What is said of the query, where, and of which term."""
    with pytest.raises(APIError) as caught:
        parse_run_query(text, now=NOW)
    assert caught.value.code == "INVALID_REQUEST"
    return caught.value.message, caught.value.details["position"], caught.value.details["term"]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("status:failed", [("status", ("failed",), False)]),
        ("STATUS:Failed,cancelled", [("status", ("failed", "cancelled"), False)]),
        ("-flow:grade-3", [("flow", ("grade-3",), True)]),
        ('flow:"with space",b', [("flow", ("with space", "b"), False)]),
        ("version:v3,draft", [("version", (Range(3, 3), Range(0, 0)), False)]),
        ("duration:>3s", [("duration", (Range(3000, low_open=True),), False)]),
        ("duration:842ms..2m", [("duration", (Range(842, 120_000),), False)]),
        ("cost:>$0.01", [("cost", (Range(0.01, low_open=True),), False)]),
        ("tokens:12.4k", [("tokens", (Range(12_400, 12_400),), False)]),
        ("since:24h", [("created", (Range(NOW_MS - 86_400_000),), False)]),
        ("-since:24h", [("created", (Range(None, NOW_MS - 86_400_000, high_open=True),), False)]),
        ("since:2026-11-20", [("created", (Range(NOW_MS - 43_200_000),), False)]),
        ("since:0001-01-01", [("created", (Range(0),), False)]),
        ('"no refund" -ticket', [("text", ("no refund",), False), ("text", ("ticket",), True)]),
        (r'text:"say \"no\" \\ twice"', [("text", (r'say "no" \ twice',), False)]),
        ('"or" text:or', [("text", ("or",), False), ("text", ("or",), False)]),
        ("a,b Text:a,b", [("text", ("a,b",), False), ("text", ("a,b",), False)]),
        (
            "step:words model:gpt-4o,echo error:CODE",
            [("step", ("words",), False), ("model", ("gpt-4o", "echo"), False), ("error", ("CODE",), False)],
        ),
    ],
)
def test_a_query_is_read(text: str, terms: list[tuple[object, ...]]) -> None:
    assert parsed(text) == terms


@pytest.mark.parametrize(
    ("text", "position", "term", "words"),
    [
        ("flow:a or flow:b", 7, "or", "there is no `or`"),
        ("flow:a OR flow:b", 7, "OR", "flow:a,b"),
        ("a statsu:failed", 2, "statsu:failed", "unknown field 'statsu'; did you mean 'status'?"),
        ("http://x", 0, "http://x", "unknown field 'http'; put \"…\" around it to search for it as text"),
        ("x -status:done", 2, "-status:done", "'done' is no status; there are pending, running"),
        ("trigger:jbo", 0, "trigger:jbo", "did you mean 'job'?"),
        ("version:new", 0, "version:new", "'new' is no number: write 3, >3"),
        ("duration:3", 0, "duration:3", "'3' needs a unit: write >3s"),
        ("duration:5s..1s", 0, "duration:5s..1s", "ends before it begins"),
        ("tokens:>", 0, "tokens:>", "'>' is no number"),
        ("since:yesterday", 0, "since:yesterday", "write an age such as 30m, 24h"),
        ("since:1h,2h", 0, "since:1h,2h", "one time is all"),
        ("status:", 0, "status:", "a value is missing"),
        ("a - b", 2, "-", "nothing to search for"),
        ('flow:"a"b', 0, 'flow:"a"b', "after a quoted value comes a space or a comma"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(text: str, position: int, term: str, words: str) -> None:
    message, at, source = refusal(text)
    assert (at, source) == (position, term)
    assert words in message
    assert f"character {position + 1}: `{term}`" in message


def test_a_session_is_found_by_its_id_and_by_the_text_of_another_program() -> None:
    session = "9f1c0000-0000-4000-8000-00000000000a"
    assert parsed(f'session:{session},"chat 7"') == [
        ("session", (session, str(uuid5(NAMESPACE_URL, "chat 7"))), False)
    ]
    ((_, words, _),) = parsed(f"session:{session.upper()}")
    assert words == (session,)


def test_a_query_is_bounded() -> None:
    assert len(parsed(" ".join(["word"] * MOST_TERMS))) == MOST_TERMS
    message, position, _ = refusal(" ".join(["word"] * (MOST_TERMS + 1)))
    assert (f"at most {MOST_TERMS} terms" in message, position) == (True, 5 * MOST_TERMS)
    assert f"at most {MOST_VALUES} values" in refusal("flow:" + ",".join("x" * (MOST_VALUES + 1)))[0]
    for text in ("x" * (MOST_CHARS + 1), "half \ud800"):
        with pytest.raises(APIError, match=r"characters|surrogate"):
            parse_run_query(text, now=NOW)


@given(st.text(max_size=80) | st.text(alphabet='status:,-"\\ 1>.<h', max_size=40))
def test_any_text_is_a_query_or_refused_with_its_place(text: str) -> None:
    try:
        query = parse_run_query(text, now=NOW)
    except APIError as error:
        if "position" in error.details:
            position, term = error.details["position"], error.details["term"]
            assert term
            assert text[position : position + len(term)] == term
        return
    for term in query.terms:
        assert text[term.position : term.position + len(term.source)] == term.source


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def state(*sent: str) -> str | None:
    context = there(read_trace_context([PARENT], list(sent)))
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

"""What each capture mode keeps of a payload, of a failed step's input and of an error.

A cut object is a JSON object of the size that was asked for, and still shows what it was.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.engine.capture.capture import Capture, RunCapture, Snapshot, capture_of_run
from runglass.engine.capture.snapshots import cut
from runglass.engine.payload import Payload
from runglass.limits.memory import COUNTED_BYTES
from runglass.redact import MARK, Redactor
from runglass.wire.run_api import CaptureFailed, CaptureMode
from tests.examples import examples
from tests.memory import most_memory

VALUE = {"text": "mail a.b@example.com", "password": "hunter2", "n": 1}
ENCODED = msgspec.json.encode(VALUE)
HIDDEN = {"text": f"mail {MARK}", "password": MARK, "n": 1}
REDACTOR = Redactor()
MODES: list[CaptureMode] = ["off", "metadata_only", "redacted", "full"]


def shown(snapshot: Snapshot) -> Any:
    return None if snapshot.data is None else msgspec.json.decode(snapshot.data)


@pytest.mark.parametrize(
    ("mode", "output", "failed_input", "error"),
    [
        ("off", None, None, {"code": None}),
        ("metadata_only", None, VALUE, VALUE),
        ("redacted", HIDDEN, HIDDEN, HIDDEN),
        ("full", VALUE, VALUE, VALUE),
    ],
)
def test_what_each_mode_keeps(mode: CaptureMode, output: Any, failed_input: Any, error: Any) -> None:
    capture = Capture(mode)
    size = None if mode == "off" else len(ENCODED)
    snapshot, kept = capture.snapshot(Payload(VALUE)), capture.kept(Payload(VALUE))
    assert (shown(snapshot), snapshot.size_bytes, snapshot.truncated) == (output, size, False)
    assert (shown(kept), kept.truncated) == (failed_input, False)
    assert msgspec.json.decode(capture.error(VALUE)) == error
    assert capture.size(Payload(VALUE)) == size
    assert capture.keeps_snapshots is (output is not None)
    assert capture.keeps_failures is (mode != "off")


@pytest.mark.parametrize(
    ("exception", "line", "kept"),
    [
        ("ValueError", 3, {"type": "ValueError", "line": 3}),
        ("Jane Doe", 3, {"line": 3}),
        ("print", None, {}),
        (None, "Jane Doe", {}),
        (["ValueError"], True, {}),
    ],
)
def test_off_keeps_code_type_and_line_of_an_error_and_only_where_they_say_nothing_else(
    exception: Any, line: Any, kept: dict[str, Any]
) -> None:
    detail = {"code": "CODE_ERROR", "message": "Jane Doe", "exception": exception, "line": line, "more": 1}
    assert msgspec.json.decode(Capture("off").error(detail)) == {"code": "CODE_ERROR", **kept}


@pytest.mark.parametrize("mode", MODES)
def test_what_is_kept_is_cut_to_the_limit_and_its_size_told_before(mode: CaptureMode) -> None:
    value = {"text": "a.b@example.com " + "x" * 10_000}
    encoded = msgspec.json.encode(value)
    capture = Capture(mode, limit_bytes=500)
    for snapshot in (capture.snapshot(Payload(value)), capture.kept(Payload(value))):
        assert snapshot.size_bytes == (None if mode == "off" else len(encoded))
        if snapshot.data is not None:
            assert snapshot.truncated
            assert len(snapshot.data) <= 500
            assert ("example.com" in shown(snapshot)["text"]) is (mode != "redacted")
    error = capture.error({"code": "CODE_ERROR", "message": "x" * 10_000, "line": 3})
    assert len(error) <= 500
    told = msgspec.json.decode(error)
    assert (told["code"], told["line"]) == ("CODE_ERROR", 3)
    assert told.get("message", "")[:9] == ("" if mode == "off" else "xxxxxxxxx")


def test_secrets_go_before_the_cut_could_split_them() -> None:
    secret = "sk-proj-" + "A1b2" * 100
    for length in range(150, 260, 7):
        value = {"text": "x" * length + " " + secret, "more": "y" * 5000}
        kept = Capture("redacted", limit_bytes=512).snapshot(Payload(value))
        assert b"A1b2" not in bytes(kept.data or b"")


def test_a_redacted_snapshot_that_fits_then_is_not_truncated() -> None:
    value = {"password": "x" * 1000}
    snapshot = Capture("redacted", limit_bytes=256).snapshot(Payload(value))
    assert (shown(snapshot), snapshot.size_bytes, snapshot.truncated) == ({"password": MARK}, 1015, False)


@given(
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())),
    st.sampled_from(["full", "redacted"]),
)
def test_nothing_under_the_limit_is_altered(value: dict[str, Any], mode: CaptureMode) -> None:
    encoded = msgspec.json.encode(value)
    kept = encoded if mode == "full" else msgspec.json.encode(REDACTOR.redact(value))
    capture = Capture(mode, limit_bytes=max(256, len(kept)), redactor=REDACTOR)
    assert capture.snapshot(Payload(value)) == (msgspec.Raw(kept), len(encoded), False)


def test_the_output_of_a_failed_step_is_null() -> None:
    assert Capture("full").snapshot(Payload(None)) == (msgspec.Raw(b"null"), 4, False)


class Said(NamedTuple):
    """What a flow, a project or a server says of capture."""

    capture: CaptureMode | None = None
    capture_failed: CaptureFailed | None = None
    capture_sample: float | None = None


SERVER = Said("metadata_only", "off", 0.0)
RUN = "01a216ae-3af3-75ae-86e9-000000000001"


@pytest.mark.parametrize(
    ("flow", "project", "traced", "mode"),
    [
        (Said(), Said(), False, "metadata_only"),
        (Said(), Said(capture_sample=1.0), False, "full"),
        (Said(capture_sample=0.0), Said(capture_sample=1.0), False, "metadata_only"),
        (Said("metadata_only"), Said(), True, "full"),
        (Said("off", capture_sample=1.0), Said(), True, "off"),
        (Said("redacted", capture_sample=1.0), Said(), True, "redacted"),
    ],
)
def test_the_sample_and_a_trace_raise_metadata_only_and_the_flow_comes_before_the_project(
    flow: Said, project: Said, traced: bool, mode: CaptureMode
) -> None:
    assert capture_of_run(RUN, flow, project, SERVER, traced=traced) == RunCapture(mode, "off")


def test_outputs_of_a_run_that_fails_are_kept_under_metadata_only_alone() -> None:
    of_failed = [Capture(mode, "redacted", limit_bytes=300).of_failed for mode in MODES]
    assert [each and (each.mode, each.limit_bytes) for each in of_failed] == [
        *(None, ("redacted", 300), None, None)
    ]
    assert Capture("metadata_only", "off").of_failed is None


def test_what_a_step_printed_and_was_given_in_secret_stays_out_of_a_redacted_error() -> None:
    detail = {"code": "CODE_ERROR", "message": "ValueError: hunter2 (line 1)", "printed": "anything"}
    given = {"password": "hunter2"}
    kept = msgspec.json.decode(Capture("redacted").error(detail, given))
    assert kept == {"code": "CODE_ERROR", "message": f"ValueError: {MARK} (line 1)"}
    assert msgspec.json.decode(Capture("full").error(detail, given)) == detail


@pytest.mark.parametrize("mode", MODES)
def test_a_payload_is_kept_like_its_value_by_every_mode_in_turn(mode: CaptureMode) -> None:
    payload = Payload(VALUE)
    for other in (*MODES, mode):
        capture = Capture(other, redactor=REDACTOR)
        assert capture.snapshot(payload) == capture.snapshot(Payload(VALUE))
        assert capture.kept(payload) == capture.kept(Payload(VALUE))


def test_a_sample_is_a_share_of_all_runs_and_of_any_larger_sample() -> None:
    runs = [f"01a216ae-3af3-75ae-86e9-{number:012x}" for number in range(10_000)]

    def sample(share: float) -> set[str]:
        said = Said(capture_sample=share)
        return {run for run in runs if capture_of_run(run, said, SERVER).mode == "full"}

    few, many = sample(0.05), sample(0.5)
    assert few < many
    assert (round(len(few) / 100), round(len(many) / 1000)) == (5, 5)
    assert (sample(0.0), sample(1.0)) == (set(), set(runs))


async def test_a_large_value_is_looked_through_once_where_it_is_to_be_kept() -> None:
    capture, payload = Capture("metadata_only", limit_bytes=256), Payload({"text": "x" * 1000})
    await capture.prepare(payload)
    assert payload.captured is None
    await capture.prepare(payload, failed=True)
    prepared = payload.captured
    assert prepared is not None
    await capture.prepare(payload, failed=True)
    assert payload.captured is prepared


async def test_a_value_that_is_put_away_while_it_is_looked_through_is_kept_like_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capture, value = Capture("full", limit_bytes=256), {"text": "x" * COUNTED_BYTES}
    payload = Payload.encoded(msgspec.json.encode(value))

    async def late(work: Callable[[], Any]) -> Any:
        payload.put_away()
        return work()

    monkeypatch.setattr("runglass.engine.capture.capture.offload_in_turn", late)
    await capture.prepare(payload)
    assert capture.kept(payload) == capture.kept(Payload(value))


def cut_value(value: dict[str, Any], limit: int) -> dict[str, Any]:
    encoded = cut(value, limit)
    assert len(encoded) <= limit
    shown = msgspec.json.decode(encoded, strict=True)
    assert isinstance(shown, dict)
    # Decoding forgets a key that stands twice; encoding again would be shorter.
    assert len(msgspec.json.encode(shown)) == len(encoded)
    return shown


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text() | st.builds(lambda text, times: text * times, st.text(), st.integers(1, 2000))
values = st.recursive(
    leaves | texts | st.integers(10**300, 10**301),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(texts, inner, max_size=8),
    max_leaves=30,
)


@examples(20, of=100)
@given(st.dictionaries(texts, values, max_size=10), st.integers(256, 5000))
def test_any_object_is_cut_to_any_limit_and_each_time_alike(value: dict[str, Any], limit: int) -> None:
    cut_value(value, limit)
    assert cut(value, limit) == cut(value, limit)


def test_a_long_text_keeps_its_beginning_and_says_what_is_missing() -> None:
    shown = cut_value({"id": 7, "text": "abc" * 1000, "short": "x"}, 1000)
    assert (shown["id"], shown["short"]) == (7, "x")
    kept, _, mark = shown["text"].partition("…")
    assert kept + ("abc" * 1000)[len(kept) :] == "abc" * 1000
    assert mark == f" [+{3000 - len(kept)} chars]"
    assert len(kept) >= 250


def test_a_long_list_keeps_its_first_items_and_says_how_many_follow() -> None:
    shown = cut_value({"rows": [{"id": n} for n in range(1000)]}, 1000)
    *kept, mark = shown["rows"]
    assert kept == [{"id": n} for n in range(len(kept))]
    assert mark == f"… [+{1000 - len(kept)} items]"
    assert len(kept) > 20


def test_all_keys_are_kept_while_they_fit() -> None:
    value = {f"key {n}": {"text": "x" * 10_000, "rows": list(range(1000))} for n in range(30)}
    assert list(cut_value(value, 2000)) == list(value)
    assert set(cut_value(value, 2000).values()) == {"{… 2 keys}"}
    assert all(set(inner) == {"text", "rows"} for inner in cut_value(value, 8000).values())


def test_too_many_keys_are_counted() -> None:
    shown = cut_value({f"k{n}": n for n in range(1000)}, 500)
    *kept, last = shown.items()
    assert kept == [(f"k{n}", n) for n in range(len(kept))]
    assert last == ("…", f"[+{1000 - len(kept)} keys]")


def test_deep_nesting_is_replaced() -> None:
    value: Any = "x" * 10_000
    for _ in range(500):
        value = {"in": [value]}
    shown: Any = cut_value(value, 2000)
    levels = 0
    while not isinstance(shown, str):
        shown = shown["in"] if isinstance(shown, dict) else shown[0]
        levels += 1
    assert levels > 10
    assert shown in ("{… 1 keys}", "[… 1 items]")


def test_long_keys_that_start_alike_stay_apart_and_marks_take_no_key() -> None:
    value = {"k" * 5000 + "a": 1, "k" * 5000 + "b": 2, "k" * 5000 + "c": 3, "…": 4, "……": 5}
    shown = cut_value(value, 1000)
    assert list(shown.values()) == [1, 2, 3, 4, 5]
    shown = cut_value({"…": 0, **{f"k{n}": n for n in range(1000)}}, 300)
    assert shown["…"] == 0
    assert "keys]" in shown["……"]


def test_lists_of_lists_without_end_are_cut() -> None:
    """Written out, they would have 2 ** 40 ends."""
    made: list[Any] = [1]
    for _ in range(40):
        made = [made, made]
    cut_value({"a": made}, 262_144)


@pytest.mark.parametrize(
    "value",
    [{"rows": [[[1] * 100] * 100] * 100}, {f"{'x' * 900}{n}": n for n in range(20_000)}],
    ids=["many values", "long names"],
)
def test_no_more_is_copied_than_there_is_room_for(value: dict[str, Any]) -> None:
    _, most_bytes = most_memory(lambda: cut(value, 5000))
    assert most_bytes < 1_000_000

"""Wake-ups as one short text."""

from hypothesis import given
from hypothesis import strategies as st

from runglass.bus.carrier import KEY_LENGTH, MOST_BYTES, MOST_KEYS, WakeUpBatch, key_of, read_batch

SENDER = key_of("sender")


@given(st.text(), st.text())
def test_a_key_is_short_and_plain_and_of_one_subject(one: str, two: str) -> None:
    key = key_of(one)
    assert len(key) == KEY_LENGTH
    assert key.isascii()
    assert key.replace("-", "a").replace("_", "a").isalnum()
    assert (key == key_of(two)) == (one == two)


@given(st.lists(st.text(st.characters(codec=None)), max_size=30))
def test_what_was_added_is_read_once_each(subjects: list[str]) -> None:
    batch = WakeUpBatch()
    keys = {key_of(each) for each in subjects}
    for subject in subjects:
        batch.add(key_of(subject))
    assert bool(batch) == bool(keys)
    sender, read = read_batch(batch.take(SENDER))
    assert read is not None
    assert sender == SENDER
    assert len(read) == len(keys)
    assert set(read) == keys
    assert not batch
    assert batch.take(SENDER) == SENDER


def test_as_many_as_a_notify_can_carry_go_and_one_more_wakes_all() -> None:
    batch = WakeUpBatch()
    for number in range(MOST_KEYS):
        batch.add(key_of(str(number)))
    full = batch.take(SENDER)
    assert MOST_BYTES - KEY_LENGTH < len(full) <= MOST_BYTES
    assert len(read_batch(full)[1] or []) == MOST_KEYS
    for number in range(100_000):
        batch.add(key_of(str(number)))
    assert batch
    text = batch.take(SENDER)
    assert len(text) == KEY_LENGTH + 1
    assert read_batch(text) == (SENDER, None)


def test_what_could_not_be_sent_is_sent_with_what_came_since() -> None:
    batch = WakeUpBatch()
    batch.add(key_of("one"))
    text = batch.take(SENDER)
    batch.add(key_of("two"))
    batch.restore(text)
    assert set(read_batch(batch.take(SENDER))[1] or []) == {key_of("one"), key_of("two")}
    batch.add_all()
    text = batch.take(SENDER)
    batch.restore(text)
    assert read_batch(batch.take(SENDER)) == (SENDER, None)


@given(st.text())
def test_a_text_of_somebody_else_is_read_within_bounds(text: str) -> None:
    _, keys = read_batch(text)
    assert keys is None or len(keys) <= MOST_KEYS


def test_an_endless_text_is_read_within_bounds() -> None:
    assert len(read_batch("x" * 10_000_000)[1] or []) == MOST_KEYS

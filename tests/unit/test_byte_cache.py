"""A cache of callers' values holds so many bytes and no more, whatever comes."""

from runglass.support.byte_cache import ByteCache


def test_a_value_is_made_once_and_the_least_recently_used_one_goes() -> None:
    made: list[bytes] = []

    def make(key: bytes) -> int:
        made.append(key)
        return len(key)

    cache = ByteCache(make, times=1, share=1.0)
    cache.limit(10_000)
    keys = [bytes([n]) * 500 for n in range(10)]
    assert [cache(key) for key in (keys[0], keys[0], keys[1], keys[0])] == [500] * 4
    assert made == keys[:2]
    for key in keys:
        cache(key)
        assert cache.size_bytes <= 10_000
    cache(keys[0])
    assert made.count(keys[0]) == 2
    cache.limit(0)
    assert cache.size_bytes == 0


def test_a_value_counts_for_what_it_takes_beside_its_key() -> None:
    cache = ByteCache[bytes, int](int, times=1, share=1.0, beside=lambda value: value)
    cache.limit(10_000)
    for key in (b"1000", b"1001", b"1002"):
        cache(key)
    assert cache.size_bytes > 4_000
    before = cache.size_bytes
    assert cache(b"9000") == 9000
    assert cache.size_bytes == before
    cache.limit(3_500)
    assert 0 < cache.size_bytes <= 3_500

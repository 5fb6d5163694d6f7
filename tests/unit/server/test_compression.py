"""A compressed answer goes to clients that accept gzip, and is the same one."""

import gzip

import pytest

from runglass.server.routes.outline import accepts_gzip, gzip_stream


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=0.5, br", True),
        ("br,x-gzip ; q=1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br", False),
        ("gzipped", False),
        ("not-gzip", False),
        ("identity;q=1, *;q=0", False),
    ],
)
def test_only_who_says_so_is_sent_gzip(header: str | None, accepts: bool) -> None:
    assert accepts_gzip(header) is accepts


def test_parts_of_any_size_are_one_stream() -> None:
    stream, parts = gzip_stream(), [b"", b"a" * 100_000, b"b", b"", b"c" * 10]
    sent = b"".join([*map(stream.compress, parts), stream.flush()])
    assert gzip.decompress(sent) == b"".join(parts)
    assert len(sent) < 1000

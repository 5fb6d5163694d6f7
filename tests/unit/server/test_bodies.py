"""Where a body is read: a large one must not hold up the event loop."""

import threading
from functools import partial

import pytest

from runglass.errors import APIError
from runglass.execution import ExecuteRequest
from runglass.server.bodies import LARGE_BYTES, read_aside, read_request


@pytest.mark.parametrize(("size", "here"), [(2, True), (LARGE_BYTES, True), (LARGE_BYTES + 1, False)])
async def test_a_large_body_is_read_in_a_thread(size: int, here: bool) -> None:
    thread = await read_aside(lambda _: threading.get_ident(), b"x" * size)
    assert (thread == threading.get_ident()) is here


async def test_a_large_body_is_refused_like_a_small_one() -> None:
    body = b'{"parameters":' + b"[" * 200 + b"0," * LARGE_BYTES + b"0" + b"]" * 200 + b"}"
    with pytest.raises(APIError, match="nested more than 100 levels deep"):
        await read_aside(partial(read_request, shape=ExecuteRequest), body)

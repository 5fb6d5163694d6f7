"""What `make prove` tries, and for seconds what it does for long: kills, cut streams, links that break."""

import asyncio

import pytest

from tests.examples import ALL, VARIABLE, examples
from tests.prove import cuts
from tests.prove.__main__ import PROOFS, everything
from tests.prove.clustering.network import Between, Link
from tests.prove.kill import kill
from tests.prove.laws import law_files
from tests.prove.proxied import KINDS, Kind, break_live
from tests.prove.recorded import Recording, record

STRIDE = 127


def test_all_examples_are_tried_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert examples(3, of=7).max_examples == 3
    monkeypatch.setenv(VARIABLE, ALL)
    assert examples(3, of=7).max_examples == 7


def test_make_prove_tries_each_law_of_which_make_test_tries_only_some_examples() -> None:
    assert "laws" in PROOFS
    assert set(PROOFS) == set(everything.commands)
    assert {"test_model_calls.py", "test_sse.py"} < {file.name for file in law_files()}


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return record()


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_sees_every_event_once_wherever_its_stream_is_cut(
    recordings: list[Recording], kind: Kind
) -> None:
    places = tuple(cuts.every_offset(recordings)[::STRIDE])
    seen = cuts.break_recorded(recordings, cuts.Task(kind, places, "small"))
    assert seen[f"readers: {kind}"] == len(places)
    assert seen["streams: resumes"] > 2 * len(places)


def test_a_run_is_followed_through_a_proxy_that_keeps_cutting_it_off() -> None:
    lines = break_live(100, seed=1)
    assert "of them while the run went on" in lines[0]


async def test_a_killed_server_keeps_its_word() -> None:
    report = await kill(kills=8, seed=1)
    assert report[0].startswith("8 kills")


TIMEOUT_S = 60.0


class Echo(Between):
    """Sends back what it is sent."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()


async def test_what_is_cut_comes_when_the_link_is_whole_again() -> None:
    async with (
        Echo().serving() as echo,
        Link(echo.port).serving() as link,
        Link(echo.port).serving() as whole,
        asyncio.timeout(TIMEOUT_S),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        for up, down in ((True, False), (False, True), (True, True)):
            link.cut(up=up, down=down)
            writer.write(b"hello")
            answer = asyncio.create_task(reader.readexactly(5))
            other, other_writer = await asyncio.open_connection("127.0.0.1", link.port)
            other_writer.write(b"other")
            # What is sent after it, and not held, comes.
            marker, marker_writer = await asyncio.open_connection("127.0.0.1", whole.port)
            marker_writer.write(b"later")
            assert await marker.readexactly(5) == b"later"
            marker_writer.close()
            assert not answer.done()
            link.heal()
            assert await answer == b"hello"
            assert await other.readexactly(5) == b"other"
            other_writer.close()
        writer.close()

"""The blocking client is written from the one on asyncio: these prove it current, and what writes it."""

import inspect
from pathlib import Path

from runglass.client.aio import native as on_asyncio
from runglass.client.blocking import native as blocking
from runglass.client.transport import asyncio_sockets, blocking_sockets
from tools import twins


def test_the_blocking_client_is_current() -> None:
    assert list(twins.differences()) == []


def test_a_source_that_changes_is_seen(tmp_path: Path) -> None:
    for source, target in twins.pairs():
        for file in (source, target):
            copy = tmp_path / file.relative_to(twins.CLIENT)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(file.read_text("utf-8"), "utf-8")
    runs = tmp_path / "aio" / "runs.py"
    runs.write_text(runs.read_text("utf-8").replace("requests.trace(", "requests.job("), "utf-8")
    changed = [line for line in twins.differences(tmp_path) if line.startswith("+ ")]
    assert [line.split() for line in changed] == [
        ["+", "return", "self._transport.call(requests.job(self._path),", "timeout=timeout)"]
    ]


def test_what_is_written_by_hand_has_the_same_names() -> None:
    def names(module: object) -> set[str]:
        own = {name for name, value in vars(module).items() if inspect.getmodule(value) is module}
        return {name.removeprefix("Async") for name in own if not name.startswith("_")}

    assert names(on_asyncio) == names(blocking)
    assert names(asyncio_sockets) == names(blocking_sockets) - {"DeadlineBackend"}

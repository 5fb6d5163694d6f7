"""The blocking and asyncio classes read the same: names, parameters, defaults, types, docstrings."""

import inspect
import re
from pathlib import Path
from typing import Any, get_overloads

import pytest

from runglass import (
    AsyncClient,
    AsyncFlow,
    AsyncJob,
    AsyncPausedResult,
    AsyncRun,
    Client,
    Flow,
    Job,
    PausedResult,
    Run,
)
from runglass.client.transport.blocking import SyncTransport
from runglass.client.transport.on_asyncio import AsyncTransport
from tools import twins

TWINS = [
    (Client, AsyncClient),
    (Flow, AsyncFlow),
    (Run, AsyncRun),
    (Job, AsyncJob),
    (PausedResult, AsyncPausedResult),
]

WAITING = {
    "Client": ["__enter__", "__exit__", "close", "import_run"],
    "Flow": ["execute", "execute_async"],
    "Job": ["poll", "wait"],
    "PausedResult": ["resume"],
    "Run": ["cancel", "delete", "diff", "outline", "rerun", "step_trace", "summary", "trace", "wait"],
}
"""What the asyncio twin awaits; everything else answers at once on both sides."""

ASYNC_NAMES = {"__enter__": "__aenter__", "__exit__": "__aexit__", "close": "aclose"}


def own_members(cls: type) -> dict[str, Any]:
    # `print(run)` asks the server, for which a text cannot wait on asyncio.
    members = {name: value for name, value in vars(cls).items() if inspect.isfunction(value)}
    members.pop("__str__", None)
    return members


def signature(function: Any) -> str:
    """As text, with the asyncio spelling of types turned into the blocking one."""
    text = str(inspect.signature(function))
    text = re.sub(r"AsyncGenerator\[(.+?), None\]", r"Generator[\1, None, None]", text)
    text = text.replace("async_", "").replace("SyncTransport", "Transport")
    return re.sub(r"\bAsync(?=[A-Z])", "", text)


@pytest.mark.parametrize(("blocking", "asyncio"), TWINS)
class TestTwins:
    def test_twins_have_the_same_members(self, blocking: type, asyncio: type) -> None:
        assert [ASYNC_NAMES.get(name, name) for name in own_members(blocking)] == list(own_members(asyncio))

    def test_members_of_twins_have_the_same_signature_and_docstring(
        self, blocking: type, asyncio: type
    ) -> None:
        for name, function in own_members(blocking).items():
            twin = own_members(asyncio)[ASYNC_NAMES.get(name, name)]
            assert signature(function) == signature(twin), name
            assert inspect.getdoc(function) == inspect.getdoc(twin), name
            overloads, twins = get_overloads(function), get_overloads(twin)
            assert [signature(one) for one in overloads] == [signature(one) for one in twins], name

    def test_the_same_members_of_twins_are_awaitable(self, blocking: type, asyncio: type) -> None:
        waiting = [ASYNC_NAMES.get(name, name) for name in WAITING[blocking.__name__]]
        members = own_members(asyncio)
        assert sorted(name for name in members if inspect.iscoroutinefunction(members[name])) == sorted(
            waiting
        )

    def test_public_members_are_documented(self, blocking: type, asyncio: type) -> None:
        assert inspect.getdoc(blocking) == inspect.getdoc(asyncio)
        for name, function in own_members(blocking).items():
            assert name.startswith("_") or function.__doc__, name


def test_the_comparison_sees_a_difference() -> None:
    assert signature(Run.trace) != signature(Run.live_trace)
    assert signature(Run.live_trace) == signature(AsyncRun.live_trace)
    assert "Generator[runglass.log.events.RunStarted | " in signature(AsyncRun.live_trace)
    assert len(get_overloads(Run.step_trace)) == 2
    assert len(get_overloads(Flow.execute)) == 3


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (
            "return await self._transport.call(requests.trace(",
            "return await self._transport.call(requests.job(",
        ),
        ("also while the\n        run is paused", "only while the\n        run is paused"),
    ],
)
def test_the_proof_that_twins_are_one_sees_what_differs(tmp_path: Path, said: str, instead: str) -> None:
    assert list(twins.differences()) == []
    text = (twins.API / "runs.py").read_text("utf-8")
    before, is_found, after = text.rpartition(said)
    assert is_found
    (tmp_path / "runs.py").write_text(before + instead + after, "utf-8")
    place = tmp_path / "runs.py"
    found = list(twins.differences([twins.Twins((place, "Run"), (place, "AsyncRun"))]))
    assert any(line.startswith("-") for line in found)


def test_the_transports_have_the_same_methods() -> None:
    names = [ASYNC_NAMES.get(name, name) for name in own_members(SyncTransport) if name[0] != "_"]
    # Only a server asks what came of a request without an error for it.
    others = [name for name in own_members(AsyncTransport) if name[0] != "_" and name != "outcome"]
    assert names == others

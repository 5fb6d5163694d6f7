"""Answers of each family of providers with odd values in them, and a real server that stands in for all."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest

from runglass.config.settings import Price, Settings
from runglass.engine.models.gateway import ModelGateway
from tests.unit.engine.fake_provider import FakeProvider, Reply
from tests.unit.engine.provider_families import FAMILIES, addressed

Place = tuple[str | int, ...]


@asynccontextmanager
async def every_provider(
    monkeypatch: pytest.MonkeyPatch, prices: Mapping[str, Price] | None = None
) -> AsyncIterator[tuple[FakeProvider, ModelGateway]]:
    """One server for the models of all families."""
    async with (
        FakeProvider.serving() as fake,
        ModelGateway(Settings(**addressed(fake, monkeypatch), prices=dict(prices or {}))) as models,
    ):
        yield fake, models


def places(value: Any, *place: str | int) -> Iterator[Place]:
    """The places of everything inside of a JSON value."""
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if type(value) is list else ()
    for name, each in inner:
        yield (*place, name)
        yield from places(each, *place, name)


def with_odd(value: Any, place: Place, odd: Any) -> Any:
    """A copy of the value with something else in one place."""
    changed = deepcopy(value)
    at = changed
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = odd
    return changed


def frames_of(reply: Reply) -> list[Any]:
    """The answer in one piece, or the lines of a stream, decoded where they have data."""
    if reply.headers:
        return [json.loads(reply.body)]
    lines = reply.body.decode().split("\n")
    return [json.loads(line[6:]) if line.startswith("data: {") else line for line in lines]


def reply_of(frames: list[Any], like: Reply) -> Reply:
    """The opposite of `frames_of`."""
    if like.headers:
        return Reply(body=json.dumps(frames[0]).encode(), headers=like.headers)
    lines = [frame if isinstance(frame, str) else f"data: {json.dumps(frame)}" for frame in frames]
    return Reply(body="\n".join(lines).encode())


def changed(family: str, change: Callable[[Any], Any], *, streamed: bool, calls: bool = False) -> Reply:
    """An answer of the family in which each frame is what `change` makes of it."""
    reply = (FAMILIES[family].stream if streamed else FAMILIES[family].whole)("Hello", calls)
    frames = [frame if isinstance(frame, str) else change(frame) for frame in frames_of(reply)]
    return reply_of(frames, reply)


def put(value: Any, *names: str) -> Callable[[Any], Any]:
    """Puts the value in the place of each member of such a name that is not empty."""

    def change(frame: Any) -> Any:
        if isinstance(frame, list):
            return [change(each) for each in frame]
        if isinstance(frame, dict):
            return {name: value if each and name in names else change(each) for name, each in frame.items()}
        return frame

    return change

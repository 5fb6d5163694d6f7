"""Managing flows through the client: twins, paths, and the same scenario on a real server from both sides."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from runglass import AsyncClient, Client
from runglass.client.api import admin
from runglass.client.api.admin import AsyncManagement, Management
from runglass.errors import FlowExecutionError, FlowNotFoundError, PermissionDeniedError
from runglass.testing import RunningServer, running_server

FLOW = "slug: greet\nname: Number {}\nsteps: [{{id: keep, type: passthrough}}]\n"
GREET = ("acme", "demo", "greet")


def members(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if inspect.isfunction(value)}


def test_the_twins_have_the_same_members_signatures_and_docstrings() -> None:
    twins = members(AsyncManagement)
    assert list(members(Management)) == list(twins)
    for name, function in members(Management).items():
        signature = str(inspect.signature(twins[name])).replace("AsyncClient", "Client")
        assert str(inspect.signature(function)) == signature, name
        assert inspect.getdoc(function) == inspect.getdoc(twins[name])
        assert inspect.iscoroutinefunction(twins[name]) == (name != "__init__")


def test_names_are_quoted_and_what_no_path_can_carry_is_refused() -> None:
    assert admin.flow("a b", "c/d", "é").path == "/flows/a%20b/c%2Fd/%C3%A9"
    for bad in ("", ".", ".."):
        with pytest.raises(ValueError, match="not a name"):
            admin.publish("acme", "demo", bad)


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None])
def test_a_version_that_cannot_be_in_production_is_refused_before_any_request(version: Any) -> None:
    with pytest.raises(ValueError, match="from 1 on"):
        admin.set_production(*GREET, version)


def test_every_call_may_be_tried_again() -> None:
    for call in (admin.push(*GREET, ""), admin.publish(*GREET), admin.flow(*GREET)):
        assert call.repeatable


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


def test_a_flow_is_pushed_published_and_rolled_back(server: RunningServer) -> None:
    with Client(server.key, base_url=server.base_url) as client:
        manage = Management(client)
        for number in (1, 2):
            assert manage.push(*GREET, FLOW.format(number)).slug == "greet"
            assert manage.publish(*GREET) == number
        assert manage.set_production(*GREET, 1).production_version == 1
        found = manage.flow(*GREET)
        assert [each.version for each in found.versions] == [0, 1, 2]
        assert manage.flow_version(*GREET, 2)["name"] == "Number 2"
        assert manage.own_flows() == manage.flows("acme", "demo")
        assert [flow.slug for flow in manage.own_flows().flows] == ["greet"]
        with pytest.raises(FlowNotFoundError, match="no version 9"):
            manage.flow_version(*GREET, 9)
        with pytest.raises(FlowExecutionError) as refused:
            manage.push(*GREET, b"slug: greet\nsteps: []\n")
        assert refused.value.details["problems"]


async def test_the_asyncio_twin_does_the_same(server: RunningServer) -> None:
    at = ("acme", "other", "greet")
    async with AsyncClient(server.make_key("acme", "other"), base_url=server.base_url) as client:
        manage = AsyncManagement(client)
        for number in (1, 2):
            assert (await manage.push(*at, FLOW.format(number))).slug == "greet"
            assert await manage.publish(*at) == number
        assert (await manage.set_production(*at, 1)).production_version == 1
        assert [each.version for each in (await manage.flow(*at)).versions] == [0, 1, 2]
        assert (await manage.flow_version(*at, 2))["name"] == "Number 2"
        assert await manage.own_flows() == await manage.flows("acme", "other")
    async with AsyncClient(server.make_key("acme", "other", "run"), base_url=server.base_url) as client:
        with pytest.raises(PermissionDeniedError):
            await AsyncManagement(client).publish(*at)

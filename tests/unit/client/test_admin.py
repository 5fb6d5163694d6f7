"""Managing flows through the client: paths, and a scenario on a real server."""

from collections.abc import Iterator
from typing import Any

import pytest

from runglass import Client
from runglass.client.api.admin import Management
from runglass.errors import FlowExecutionError, FlowNotFoundError, PermissionDeniedError
from runglass.testing import RunningServer, running_server
from tests.unit.client.scripted import ScriptedServer, answers
from tests.unit.client.sides import Blocking

FLOW = "slug: greet\nname: Number {}\nsteps: [{{id: keep, type: passthrough}}]\n"
GREET = ("acme", "demo", "greet")


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def manage(scripted: ScriptedServer) -> Iterator[Management]:
    with Client("nk_test", base_url=scripted.url) as client:
        yield Management(client)


def test_names_are_quoted_and_what_no_path_can_carry_is_refused(
    scripted: ScriptedServer, manage: Management
) -> None:
    scripted.plays(answers({"version": 1}))
    assert manage.publish("a b", "c/d", "é") == 1
    for bad in ("", ".", ".."):
        with pytest.raises(ValueError, match="a name of an org, a project or a flow may not be"):
            manage.publish("acme", "demo", bad)
    assert [each.target for each in scripted.requests] == ["/api/v1/flows/a%20b/c%2Fd/%C3%A9/publish"]


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None])
def test_a_version_that_cannot_be_in_production_is_refused_before_any_request(
    scripted: ScriptedServer, manage: Management, version: Any
) -> None:
    with pytest.raises(ValueError, match="from 1 on"):
        manage.set_production(*GREET, version)
    assert scripted.requests == []


def test_a_call_is_tried_again_as_it_sets_a_state(scripted: ScriptedServer) -> None:
    scripted.plays(answers({}, status=502), answers({"version": 1}))
    side = Blocking()
    try:
        assert Management(side.client(scripted.url)).publish(*GREET) == 1
    finally:
        side.close()
    assert len(scripted.requests) == 2


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


def test_a_key_that_may_only_run_flows_manages_none(server: RunningServer) -> None:
    server.push(FLOW.format(1), project="other")
    with (
        Client(server.make_key("acme", "other", "run"), base_url=server.base_url) as client,
        pytest.raises(PermissionDeniedError),
    ):
        Management(client).publish("acme", "other", "greet")

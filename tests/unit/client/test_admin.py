"""Managing flows through the client: paths, and a scenario on a real server."""

from collections.abc import Iterator
from typing import Any

import pytest

from runglass import Client
from runglass.client.api.admin import Management
from tests.unit.client.scripted import ScriptedServer, answers
from tests.unit.client.sides import Blocking

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

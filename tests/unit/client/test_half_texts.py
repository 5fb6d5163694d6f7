"""Half a surrogate pair in an argument is refused, saying where it is, before anything is sent."""

from collections.abc import Callable
from typing import Any

import pytest

from runglass import Client
from runglass.client.api.admin import Management
from tests.unit.client.scripted import ScriptedServer
from tests.unit.client.sides import Side

HALF = "\ud800"


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"message": f"a{HALF}"}, "message may not be"),
        ({"parameters": {"deep": [1, {"x": HALF}]}}, r"parameters\.deep\[1\]\.x may not be"),
        ({"parameters": {HALF: 1}}, r"parameters\['\\ud800'\] may not be"),
        ({"message": "a", "attachments": [{"url": HALF, "name": "n", "mimeType": "image/png"}]}, "attach"),
    ],
)
def test_a_run_with_half_a_character_is_refused_before_any_request(
    server: ScriptedServer, side: Side, arguments: dict[str, Any], where: str
) -> None:
    flow = side.client(server.url).flow("a/p/s")
    with pytest.raises(ValueError, match=where) as refused:
        side.value(flow.execute(**arguments))
    assert type(refused.value) is ValueError
    str(refused.value).encode()
    assert server.requests == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.flow(f"a/p/{HALF}"),
        lambda client: client.flow(slug="s", org=HALF, project="p"),
        lambda client: client.run(HALF).trace(),
        lambda client: client.run("r").step_trace(HALF),
        lambda client: client.runs(cursor=HALF),
        lambda client: client.runs(flow_id=HALF),
    ],
    ids=["path", "org", "run", "step", "cursor", "flow id"],
)
def test_a_path_or_query_with_half_a_character_is_refused(
    server: ScriptedServer, side: Side, ask: Callable[[Any], Any]
) -> None:
    with pytest.raises(ValueError, match="half a surrogate pair"):
        side.value(ask(side.client(server.url)))
    assert server.requests == []


def test_a_pushed_flow_with_half_a_character_is_refused(server: ScriptedServer) -> None:
    with Client("nk_test", base_url=server.url) as client:
        for arguments in (("a", "p", "s", HALF), ("a", "p", HALF, "slug: s")):
            with pytest.raises(ValueError, match="half a surrogate pair"):
                Management(client).push(*arguments)
    assert server.requests == []


def test_a_base_url_with_half_a_character_is_refused(side: Side) -> None:
    with pytest.raises(ValueError, match="not UTF-8 text"):
        side.client(f"http://h/{HALF}")

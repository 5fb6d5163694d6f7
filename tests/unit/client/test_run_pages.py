"""`client.runs()` is a page, and a loop over it goes through every page, each asked for when it is due."""

from typing import Any

import msgspec

from runglass import RunPage, RunSummary
from tests.unit.client.scripted import ScriptedServer, answers
from tests.unit.client.sides import Side


def page(*ids: str, cursor: str | None = None) -> Any:
    runs = [{"id": run_id, "flowId": "f", "status": "completed"} for run_id in ids]
    return answers({"runs": runs, "nextCursor": cursor})


def targets(server: ScriptedServer) -> list[str]:
    return [request.target.removeprefix("/api/v1/flow-runs") for request in server.requests]


def test_a_loop_walks_all_pages_with_the_same_filter_and_from_its_start_each_time(
    server: ScriptedServer, side: Side
) -> None:
    pages = [page("r5", "r4", cursor="c1"), page("r3", cursor="c2"), page()]
    server.plays(*pages, *pages)
    client = side.client(server.url)
    for _ in range(2):
        ids = [
            run.id for run in side.events(side.walking(client.runs(status="failed", limit=2, cursor="c0")))
        ]
        assert ids == ["r5", "r4", "r3"]
    assert targets(server) == 2 * [
        "?status=failed&limit=2&cursor=c0",
        "?status=failed&limit=2&cursor=c1",
        "?status=failed&limit=2&cursor=c2",
    ]


def test_a_page_is_fetched_when_the_loop_comes_to_it(server: ScriptedServer, side: Side) -> None:
    server.plays(page("r5", "r4", cursor="c1"), page("r3"))
    runs = side.following(side.walking(side.client(server.url).runs()))
    assert [next(runs).id, next(runs).id] == ["r5", "r4"]
    assert len(server.requests) == 1
    assert next(runs).id == "r3"
    runs.close()


def test_run_pages_are_a_run_page(server: ScriptedServer, side: Side) -> None:
    server.plays(page("r5", cursor="c1"))
    found = side.value(side.client(server.url).runs(limit=1))
    same = RunPage(runs=[RunSummary(id="r5", flow_id="f", status="completed")], next_cursor="c1")
    assert isinstance(found, RunPage)
    assert found == same
    assert same == found
    assert found != RunPage(runs=[])
    assert msgspec.json.encode(found) == msgspec.json.encode(same)

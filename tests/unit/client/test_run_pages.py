"""`client.runs()` is a page, and a loop over it goes through every page, each asked for when it is due."""

from typing import Any

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

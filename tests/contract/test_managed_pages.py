"""Lists of flows, versions and keys: whole while they are short, in pages beyond, and none is lost."""

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Any

import httpx2
import pytest

from runglass import Client
from runglass.client.api.admin import Management
from runglass.testing import RunningServer, running_server
from tests.contract.wire import ANYTHING

BOUND = 1000
MANY = BOUND + 1
LISTS = {
    "/flows": ("flows", "slug"),
    "/flows/acme/demo": ("flows", "slug"),
    "/flows/acme/demo/anything": ("versions", "version"),
    "/keys": ("keys", "id"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """With more keys and flows than one answer holds, and a flow of four versions."""

    async def fill() -> None:
        store = running.runtime.store
        project = await store.ensure_project("acme", "demo")
        versions = [f'{{"slug":"anything","steps":[],"name":"{n}"}}'.encode() for n in range(3)]
        for source in versions:
            flow = await store.put_draft(project.id, "anything", name=None, capture=None, source=source)
            await store.publish(flow.id)
        async with asyncio.TaskGroup() as group:
            for number in range(MANY - 1):
                put = store.put_draft(project.id, f"f{number:04}", name=None, capture=None, source=b"{}")
                group.create_task(put)
                group.create_task(store.add_key(project.id, "read", b"%d" % number, "nk_x"))

    with running_server() as running:
        running.push(ANYTHING, project="short")
        running.call(fill())
        yield running


def walked(http: httpx2.Client, path: str, **query: Any) -> list[list[Any]]:
    """The identities of the members of each page."""
    members, name = LISTS[path]
    pages: list[list[Any]] = []
    more: dict[str, str] = {}
    while True:
        answer = http.get(path, params={**query, **more})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        pages.append([each[name] for each in page[members]])
        if "nextCursor" not in page:
            return pages
        more = {"cursor": page["nextCursor"]}


@pytest.mark.parametrize("path", LISTS)
def test_pages_of_any_size_put_together_are_the_list(http: httpx2.Client, path: str) -> None:
    in_full = [*chain(*walked(http, path))]
    size = 3 if path.endswith("anything") else 400
    pages = walked(http, path, limit=size)
    assert len(pages) > 1
    assert {len(page) for page in pages[:-1]} == {size}
    assert [*chain(*pages)] == in_full
    assert len(walked(http, path, limit=min(len(in_full), BOUND))) == (1 if len(in_full) <= BOUND else 2)


def test_our_client_fetches_all_of_it(server: RunningServer) -> None:
    with Client(server.key, base_url=server.base_url) as client:
        manage = Management(client)
        listed = manage.flows("acme", "demo")
        assert (len(listed.flows), listed.next_cursor) == (MANY, None)
        assert manage.own_flows() == listed
        assert [each.version for each in manage.flow("acme", "demo", "anything").versions] == [0, 1, 2, 3]

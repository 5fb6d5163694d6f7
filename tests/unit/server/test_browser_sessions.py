"""Sessions of browsers, and the tickets that begin them: bounded in number and time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from starlette.types import Scope

from runglass.errors import APIError, AuthenticationError, StoreError
from runglass.server.security.browser_sessions import IDLE, LIFETIME, NOTED_EVERY, BrowserSessions, NewSession
from runglass.server.security.login_tickets import MOST_OF_KEY as TICKETS_OF_KEY
from runglass.server.security.login_tickets import MOST_OF_PROJECT as TICKETS_OF_PROJECT
from runglass.server.security.login_tickets import MOST_TICKETS, PATH, TICKET_S, LoginTickets
from runglass.store.base import Store
from runglass.store.records import ApiKey
from runglass.store.sqlite.store import SqliteStore
from tests.fakes import VirtualClock
from tests.faulty_store import FaultyStore
from tests.records import there


def key(number: int = 1, *, project: int = 7) -> ApiKey:
    return ApiKey(id=number, project_id=project, role="read", hint="nk_", created_at="2026-01-01T00:00:00Z")


def asks(*, cookie: str = "", proof: str = "") -> Scope:
    """A request that shows these halves of a session."""
    shown = {"cookie": cookie and f"runglass_session={cookie}", "x-viewer-proof": proof}
    headers = [(name.encode(), value.encode()) for name, value in shown.items() if value]
    return {"method": "GET", "headers": headers}


async def is_signed_in(sessions: BrowserSessions, session: NewSession) -> bool:
    try:
        return await sessions.find(asks(**session._asdict())) is not None
    except AuthenticationError:
        return False


class Signing(NamedTuple):
    """The sessions of a store, and a key to begin some with."""

    store: Store
    sessions: BrowserSessions
    clock: VirtualClock
    key: ApiKey


@pytest.fixture
async def signing(tmp_path: Path) -> AsyncIterator[Signing]:
    clock = VirtualClock()
    async with SqliteStore(tmp_path / "db") as store:
        project = await store.ensure_project("acme", "demo")
        key = await store.add_key(project.id, "read", b"digest", "nk_")
        yield Signing(store, BrowserSessions(store, clock=clock), clock, key)


async def test_cookies_of_its_name_that_another_port_has_set_do_not_hide_a_session(signing: Signing) -> None:
    session = await signing.sessions.begin(signing.key)
    tossed = "; ".join(["x", *(f"runglass_session=tossed-{number}" for number in range(20))])
    shown = f"tossed; {tossed}; runglass_session={session.cookie}"
    assert await is_signed_in(signing.sessions, session._replace(cookie=shown))
    assert not await is_signed_in(signing.sessions, NewSession(shown, proof="another"))


async def test_a_session_ends_when_it_is_not_used(signing: Signing) -> None:
    session = await signing.sessions.begin(signing.key)
    for _ in range(3):
        await signing.clock.sleep(IDLE.total_seconds() - 1)
        assert await is_signed_in(signing.sessions, session)
    await signing.clock.sleep((IDLE + NOTED_EVERY).total_seconds() + 1)
    assert not await is_signed_in(signing.sessions, session)


@pytest.mark.parametrize("begins_others", [False, True])
async def test_a_session_ends_after_a_week_with_all_that_it_began_however_often_they_are_used(
    signing: Signing, begins_others: bool
) -> None:
    session = await signing.sessions.begin(signing.key)
    while await is_signed_in(signing.sessions, session):
        assert signing.clock.monotonic_s() <= LIFETIME.total_seconds()
        if begins_others:
            found = there(await signing.sessions.find(asks(**session._asdict())))
            session = await signing.sessions.begin(signing.key, began_at=found.began_at)
        await signing.clock.sleep(IDLE.total_seconds() / 2)
    assert signing.clock.monotonic_s() > LIFETIME.total_seconds()


async def test_use_is_written_down_now_and_then_and_not_by_each_request(signing: Signing) -> None:
    faults = FaultyStore(signing.store)
    faults.fail("use_viewer_session", StoreError("the disk is full"))
    noted = faults.calls("use_viewer_session")
    session = await signing.sessions.begin(signing.key)
    for _ in range(3):
        await signing.clock.sleep(NOTED_EVERY.total_seconds() / 2)
        assert await is_signed_in(signing.sessions, session)
    assert [call.args[1] for call in noted] == ["2026-01-01T00:07:30.000Z"], "and runs are read all the same"


def test_a_ticket_is_good_once_and_for_a_minute() -> None:
    clock = VirtualClock()
    tickets = LoginTickets(clock=clock.monotonic_s)
    one, late = (tickets.issue(key(), "/runs/x?step=a/b").removeprefix(PATH) for _ in range(2))
    found = there(tickets.redeem(one))
    assert (found.key_id, found.page) == (1, "/runs/x?step=a/b")
    assert tickets.redeem(one) is None
    assert tickets.redeem("guess") is None
    clock.set_back(-(TICKET_S + 1))
    assert tickets.redeem(late) is None


@pytest.mark.parametrize(
    ("keys", "projects", "other", "most"),
    [
        (1, 1, key(0, project=1), TICKETS_OF_KEY),
        (MOST_TICKETS + 1, 1, key(0, project=0), TICKETS_OF_PROJECT),
        (MOST_TICKETS + 1, MOST_TICKETS + 1, key(0, project=0), MOST_TICKETS),
    ],
)
def test_there_are_so_many_tickets_of_a_key_of_a_project_and_of_all_and_the_newest_are_good(
    keys: int, projects: int, other: ApiKey, most: int
) -> None:
    """A key takes none from others of its project, nor a project from others."""
    tickets = LoginTickets(clock=VirtualClock().monotonic_s)
    others = tickets.issue(other).removeprefix(PATH)
    own = [
        tickets.issue(key(1 + number % keys, project=1 + number % projects)).removeprefix(PATH)
        for number in range(MOST_TICKETS + 1)
    ]
    assert (tickets.redeem(others) is not None) == (projects == 1)
    good = [tickets.redeem(each) is not None for each in own]
    assert good == [False] * (len(own) - most) + [True] * most


@pytest.mark.parametrize(
    "page",
    ["", "runs", "//evil.example/", "/\\evil.example", "https://evil.example", "/a\r\nb", "/" + "x" * 600],
)
def test_a_ticket_opens_a_page_of_this_server_alone(page: str) -> None:
    with pytest.raises(APIError, match="must be a path of this server"):
        LoginTickets(clock=VirtualClock().monotonic_s).issue(key(), page)

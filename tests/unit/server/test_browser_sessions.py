"""Sessions of browsers, and the tickets that begin them: bounded in number and time."""

import pytest

from runglass.errors import APIError
from runglass.server.security.browser_sessions import (
    IDLE_S,
    LIFETIME_S,
    MOST_OF_KEY,
    MOST_OF_PROJECT,
    MOST_SESSIONS,
    BrowserSessions,
)
from runglass.server.security.login_tickets import MOST_OF_KEY as TICKETS_OF_KEY
from runglass.server.security.login_tickets import MOST_OF_PROJECT as TICKETS_OF_PROJECT
from runglass.server.security.login_tickets import MOST_TICKETS, PATH, TICKET_S, LoginTickets
from runglass.server.security.session_cookie import began_of
from runglass.store.records import ApiKey


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def key(number: int = 1, *, project: int = 7) -> ApiKey:
    return ApiKey(id=number, project_id=project, role="read", hint="nk_", created_at="2026-01-01T00:00:00Z")


def test_a_session_is_found_by_its_id_until_it_is_ended(clock: Clock) -> None:
    sessions = BrowserSessions(clock=clock)
    one, other = sessions.begin(key(1)), sessions.begin(key(2))
    assert one != other
    found = sessions.find(one)
    assert found is not None
    assert (found.project_id, found.key_id) == (7, 1)
    sessions.end(one)
    assert sessions.find(one) is None
    assert sessions.find(other) is not None
    assert sessions.find("") is None


def test_a_session_ends_when_it_is_not_used(clock: Clock) -> None:
    sessions = BrowserSessions(clock=clock)
    session = sessions.begin(key())
    for _ in range(3):
        clock.now_s += IDLE_S - 1
        assert sessions.find(session) is not None
    clock.now_s += IDLE_S + 1
    assert sessions.find(session) is None
    assert len(sessions) == 0


def test_a_session_ends_after_a_week_however_often_it_is_used(clock: Clock) -> None:
    sessions = BrowserSessions(clock=clock)
    session, began_s = sessions.begin(key()), clock.now_s
    while clock.now_s - began_s <= LIFETIME_S:
        assert sessions.find(session) is not None
        clock.now_s += IDLE_S / 2
    assert sessions.find(session) is None


def test_a_key_has_so_many_sessions_and_the_one_used_longest_ago_goes(clock: Clock) -> None:
    sessions = BrowserSessions(clock=clock)
    stranger = sessions.begin(key(2))
    first = [sessions.begin(key(1)) for _ in range(MOST_OF_KEY)]
    sessions.find(first[0])
    sessions.begin(key(1))
    assert len(sessions) == MOST_OF_KEY + 1
    assert sessions.find(first[0]) is not None
    assert sessions.find(first[1]) is None
    assert sessions.find(stranger) is not None


def test_a_session_that_a_session_begins_ends_with_it(clock: Clock) -> None:
    sessions = BrowserSessions(clock=clock)
    session, began_s = sessions.begin(key()), clock.now_s
    while (found := sessions.find(session)) is not None:
        session = sessions.begin(key(), began_s=found.began_s)
        clock.now_s += IDLE_S / 2
    assert LIFETIME_S < clock.now_s - began_s <= LIFETIME_S + IDLE_S


def test_what_a_cookie_asks_for_began_with_its_session_and_what_a_key_asks_for_begins(clock: Clock) -> None:
    sessions = BrowserSessions(clock=clock)
    cookie = (b"cookie", f"runglass_session={sessions.begin(key())}".encode())
    began_s, shown = clock.now_s, (b"authorization", b"Bearer nk_live_x")
    clock.now_s += 60
    assert began_of(sessions, {"headers": [cookie]}) == began_s
    assert began_of(sessions, {"headers": [cookie, shown]}) is None
    assert began_of(sessions, {"headers": [(b"cookie", b"runglass_session=other")]}) is None


def test_the_keys_of_a_project_have_so_many_sessions_and_take_none_from_others(clock: Clock) -> None:
    sessions = BrowserSessions(clock=clock)
    stranger = sessions.begin(key(0, project=8))
    first = sessions.begin(key(1))
    for number in range(MOST_SESSIONS):
        sessions.begin(key(number + 2))
    assert len(sessions) == MOST_OF_PROJECT + 1
    assert sessions.find(first) is None
    assert sessions.find(stranger) is not None


def test_all_projects_together_have_so_many_sessions_and_the_one_with_most_has_one_less(clock: Clock) -> None:
    sessions = BrowserSessions(clock=clock)
    strangers = [sessions.begin(key(0, project=project)) for project in range(50, 60)]
    full = [sessions.begin(key(number, project=1)) for number in range(MOST_OF_PROJECT)]
    for project in range(2, MOST_SESSIONS // MOST_OF_PROJECT + 1):
        for number in range(MOST_OF_PROJECT - 1):
            sessions.begin(key(number, project=project))
    assert len(sessions) == MOST_SESSIONS
    for number in range(20):
        sessions.begin(key(number, project=70))
    assert len(sessions) == MOST_SESSIONS
    assert sessions.find(full[0]) is None
    assert all(sessions.find(each) is not None for each in strangers)


def test_a_ticket_is_good_once_and_for_a_minute(clock: Clock) -> None:
    tickets = LoginTickets(clock=clock)
    one, late = (tickets.issue(key(), "/runs/x?step=a/b").removeprefix(PATH) for _ in range(2))
    found = tickets.redeem(one)
    assert found is not None
    assert (found.key_id, found.page) == (1, "/runs/x?step=a/b")
    assert tickets.redeem(one) is None
    assert tickets.redeem("guess") is None
    clock.now_s += TICKET_S + 1
    assert tickets.redeem(late) is None


def test_a_key_has_so_many_tickets_and_takes_none_from_others(clock: Clock) -> None:
    tickets = LoginTickets(clock=clock)
    others = tickets.issue(key(2)).removeprefix(PATH)
    own = [tickets.issue(key(1)).removeprefix(PATH) for _ in range(MOST_TICKETS + 1)]
    assert tickets.redeem(others) is not None
    assert [tickets.redeem(each) is not None for each in own].count(True) == TICKETS_OF_KEY


def test_there_are_so_many_tickets_at_a_time(clock: Clock) -> None:
    tickets = LoginTickets(clock=clock)
    first = tickets.issue(key()).removeprefix(PATH)
    issued = [tickets.issue(key(number, project=number)) for number in range(2, MOST_TICKETS + 2)]
    last = issued[-1].removeprefix(PATH)
    assert tickets.redeem(first) is None
    assert tickets.redeem(last) is not None


def test_the_keys_of_a_project_have_so_many_tickets_and_take_none_from_others(clock: Clock) -> None:
    tickets = LoginTickets(clock=clock)
    others = tickets.issue(key(0, project=8)).removeprefix(PATH)
    own = [tickets.issue(key(number)).removeprefix(PATH) for number in range(1, MOST_TICKETS + 2)]
    assert tickets.redeem(others) is not None
    assert [tickets.redeem(each) is not None for each in own].count(True) == TICKETS_OF_PROJECT


@pytest.mark.parametrize(
    "page",
    ["", "runs", "//evil.example/", "/\\evil.example", "https://evil.example", "/a\r\nb", "/" + "x" * 600],
)
def test_a_ticket_opens_a_page_of_this_server_alone(page: str, clock: Clock) -> None:
    with pytest.raises(APIError, match="must be a path of this server"):
        LoginTickets(clock=clock).issue(key(), page)

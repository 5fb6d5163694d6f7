"""What every request passes before a path is looked for: its key, its id, the spelling of its path.

What each role may do on each path is in `test_roles.py`.
"""

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import UUID, detail, execute, refusal


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/no/such/path"),
        ("DELETE", "/flow-runs"),
        ("HEAD", "/flow-runs"),
        ("OPTIONS", "/flow-runs"),
        ("GET", "/schemas/other.json"),
        ("GET", "/schemas/flow.json/more"),
    ],
)
def test_nothing_below_the_api_is_open_without_a_good_key(
    nobody: httpx2.Client, method: str, path: str
) -> None:
    """Not even whether a path or a method is there."""
    for headers in ({}, {"Authorization": "Bearer nk_wrong"}):
        answer = nobody.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"]
        assert method == "HEAD" or detail(answer)["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "path",
    [
        "//api/v1/flow-runs",
        "/api//v1/flow-runs",
        "/api/v1//flow-runs/",
        "/%61pi/v1/flow-runs",
        "/api/v1",
        "/api/v1/",
    ],
)
def test_no_spelling_of_a_path_is_a_way_around_the_key(
    server: RunningServer, nobody: httpx2.Client, path: str
) -> None:
    assert nobody.get(f"{server.address}{path}").status_code == 401


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        *((f"{scheme} {{key}}", 200) for scheme in ("Bearer", "bearer", "BEARER", "Bearer ")),
        *((bad, 401) for bad in ("", "Bearer", "Bearer other", "Basic {key}", "{key}", "Bearer {key}x")),
    ],
)
def test_a_key_is_shown_whole_behind_its_scheme_in_any_case(
    server: RunningServer, nobody: httpx2.Client, shown: str, status: int
) -> None:
    headers = {"Authorization": shown.format(key=server.key)}
    assert nobody.get("/flow-runs", headers=headers).status_code == status


def test_open_endpoints_need_no_key(server: RunningServer, nobody: httpx2.Client) -> None:
    for path in ("/health", "/ready", "/docs", "/docs/openapi.json", "/api/v1/schemas/flow.json"):
        assert nobody.get(f"{server.address}{path}").status_code == 200


def test_request_ids_are_echoed_when_sane_and_made_otherwise(
    server: RunningServer, http: httpx2.Client, nobody: httpx2.Client
) -> None:
    run = execute(http, "anything")
    for path in ("/flow-runs", "/none", f"/flow-runs/{run}/trace/stream", f"{server.address}/health"):
        for client in (http, nobody):
            sane = {"X-Request-ID": "abc-DEF_1.2"}
            assert client.get(path, headers=sane).headers.get_list("x-request-id") == ["abc-DEF_1.2"]
            for bad in ("", "a b", "x" * 129, "<script>", "a,b"):
                made = client.get(path, headers={"X-Request-ID": bad}).headers["x-request-id"]
                assert UUID.fullmatch(made)


@pytest.mark.parametrize("path", ["/flow-runs%0A", "/keys/1%0A", "/%0A"])
def test_a_line_break_at_the_end_makes_another_path(http: httpx2.Client, path: str) -> None:
    assert refusal(http.get(path)) == (404, "NOT_FOUND")

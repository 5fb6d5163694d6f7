"""The viewer's page and files, and a browser's cookie in place of a key."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import (
    LONGEST_S,
    execute,
    http_for,
    known_key,
    raw_connection,
    read_answer,
    refusal,
)

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
OWN = {"Sec-Fetch-Site": "same-origin"}
PROOF = "X-Viewer-Proof"
RUN = "01900000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def page(server: RunningServer) -> Iterator[httpx2.Client]:
    """A browser that has not signed in."""
    with httpx2.Client(base_url=server.address, timeout=LONGEST_S) as client:
        yield client


@pytest.fixture
def browser(server: RunningServer) -> Iterator[httpx2.Client]:
    """A browser that is signed in with an admin key."""
    with signed_in(server, server.make_key("acme", "demo")) as client:
        yield client


@contextmanager
def signed_in(server: RunningServer, key: str) -> Iterator[httpx2.Client]:
    with http_for(server, None) as client:
        answer = client.post("/viewer/session", headers={"Authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.content) == (204, b"")
        client.headers[PROOF] = answer.headers[PROOF]
        yield client


@pytest.mark.parametrize("path", ["/", f"/runs/{RUN}", f"/compare/{RUN}/{RUN}"])
def test_every_page_is_a_shell_that_lets_nothing_else_in(page: httpx2.Client, path: str) -> None:
    answer = page.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    assert "<script>" not in answer.text
    assert "style=" not in answer.text
    for known in (answer.headers["etag"], f'"other", W/{answer.headers["etag"]}', "*"):
        again = page.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == CSP


def test_all_that_the_shell_names_is_there_and_kept_for_ever(page: httpx2.Client) -> None:
    """A page from before an upgrade still gets its files, which are not kept."""
    links = re.findall(r'(?:src|href)="([^"]+)"', page.get("/").text)
    assert len(links) == 3
    for link in links:
        answer = page.get(link)
        assert answer.status_code == 200, link
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-encoding"] == "gzip"
        for other in ("identity", "br, gzip; q=0", "gzipped"):
            plain = page.get(link, headers={"Accept-Encoding": other})
            assert "content-encoding" not in plain.headers, other
            assert plain.content == answer.content
    of_before = page.get("/viewer/0123456789abcdef/viewer.js")
    assert (of_before.status_code, of_before.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize("name", ["main.js", "../assets.py", "assets.py", "__init__.py", "shell.html", ""])
def test_no_other_file_is_sent(page: httpx2.Client, name: str) -> None:
    digest = page.get("/").headers["etag"].strip('"')
    assert page.get(f"/viewer/{digest}/{name}").status_code == 404


def test_a_cookie_stands_for_the_key_and_is_not_the_key(server: RunningServer) -> None:
    key = server.make_key("acme", "demo", "run")
    with http_for(server, None) as client:
        answer = client.post("/viewer/session", headers={"Authorization": f"Bearer {key}"})
        cookie = answer.headers["set-cookie"]
        assert re.fullmatch(
            r"runglass_session_\d+=[\w-]{43}; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict", cookie
        )
        proof = answer.headers[PROOF]
        assert re.fullmatch(r"[\w-]{43}", proof)
        assert proof not in cookie
        assert key.rpartition("_")[2] not in cookie + proof
        me = client.get("/viewer/me", headers={PROOF: proof}).json()
        by_https = {"Authorization": f"Bearer {key}", "Origin": "https://runs.example"}
        cookie = client.post("/viewer/session", headers=by_https).headers["set-cookie"]
        assert cookie.endswith("; SameSite=Strict; Secure")
    assert (me["role"], me["org"], me["project"]) == ("run", "acme", "demo")
    assert key.startswith(me["keyName"])
    assert len(me["keyName"]) < 20


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/viewer/me"),
        ("GET", "/flow-runs"),
        ("GET", "/flow-runs/stream"),
        ("GET", f"/flow-runs/{RUN}/trace/stream"),
        ("GET", f"/flow-runs/{RUN}/export"),
        ("HEAD", "/flow-runs"),
        ("POST", "/keys"),
        ("POST", "/viewer/session"),
        ("POST", "/viewer/tickets"),
        ("POST", "/seq/acme/demo/anything/execute"),
        ("DELETE", "/viewer/session"),
        ("GET", "/nothing"),
    ],
)
def test_a_cookie_that_is_replayed_without_its_other_half_is_worth_nothing(
    server: RunningServer, browser: httpx2.Client, method: str, path: str
) -> None:
    """As a server on another port does, which gets the cookie and can send any header but the proof."""
    (cookie,) = (f"{name}={value}" for name, value in browser.cookies.items())
    with signed_in(server, server.make_key("other", "project")) as stranger:
        foreign = stranger.headers[PROOF]
    own = {**OWN, "Origin": server.address, "Cookie": cookie}
    with http_for(server, None) as thief:
        for proof in ({}, {PROOF: ""}, {PROOF: "guess"}, {PROOF: foreign}, {PROOF: cookie.partition("=")[2]}):
            answer = thief.request(method, path, headers={**own, **proof})
            assert answer.status_code == 401
            assert method == "HEAD" or refusal(answer) == (401, "UNAUTHENTICATED")
    assert browser.get("/viewer/me").status_code == 200


def test_authorization_counts_before_the_cookie_and_its_key_s_role_holds_for_a_session(
    server: RunningServer, browser: httpx2.Client
) -> None:
    reading = server.make_key("acme", "demo", "read")
    answer = browser.get("/viewer/me", headers={"Authorization": f"Bearer {reading}"})
    assert answer.json()["role"] == "read"
    assert refusal(browser.get("/viewer/me", headers={"Authorization": "Bearer nk_wrong"}))[0] == 401
    with signed_in(server, reading) as reader:
        answer = reader.post("/seq/acme/demo/anything/execute", json={}, headers=OWN)
        assert refusal(answer, "'read'") == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "{own}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "{own}"},
    ],
)
def test_no_other_site_can_change_anything(
    server: RunningServer, browser: httpx2.Client, headers: dict[str, str]
) -> None:
    sent = {name: value.format(own=server.address) for name, value in headers.items()}
    for method, path in (
        ("POST", "/seq/acme/demo/anything/execute"),
        ("DELETE", f"/flow-runs/{RUN}"),
        ("PUT", "/flows/acme/demo/anything"),
        ("POST", "/keys"),
    ):
        assert refusal(browser.request(method, path, headers=sent, json={})) == (403, "FORBIDDEN")
    if sent.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        assert refusal(browser.get("/flow-runs", headers=sent)) == (403, "FORBIDDEN")


def test_the_viewers_own_pages_can_and_a_program_with_a_key_needs_no_origin(
    server: RunningServer, http: httpx2.Client, browser: httpx2.Client
) -> None:
    path = "/seq/acme/demo/anything/execute"
    for headers in (OWN, {"Origin": server.address}, {**OWN, "Origin": server.address}):
        assert browser.post(path, json={}, headers=headers).status_code == 200
    for headers in ({"Sec-Fetch-Site": "none"}, OWN, {}):
        assert browser.get("/flow-runs", headers=headers).status_code == 200
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Cookie": "a=b"}
    assert http.post(path, json={}, headers=elsewhere).status_code == 200


def test_signing_out_ends_the_session_and_takes_the_cookie_back(browser: httpx2.Client) -> None:
    (cookie,) = (f"{name}={value}" for name, value in browser.cookies.items())
    assert refusal(browser.delete("/viewer/session")) == (403, "FORBIDDEN")
    answer = browser.delete("/viewer/session", headers=OWN)
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert not browser.cookies
    again = browser.get("/flow-runs", headers={"Cookie": cookie})
    assert PROOF in again.request.headers
    assert refusal(again, "sign in again") == (401, "UNAUTHENTICATED")


def test_every_answer_says_what_it_is_and_the_api_s_that_no_browser_keeps_it(
    server: RunningServer, http: httpx2.Client, nobody: httpx2.Client, browser: httpx2.Client
) -> None:
    run = execute(http, "anything", parameters={"n": 1})
    payload = f"/flow-runs/{run}/steps/keep/payload"
    known = {"If-None-Match": http.get(payload).headers["etag"]}
    answers = {
        "read": http.get("/flow-runs"),
        "trace": http.get(f"/flow-runs/{run}/trace"),
        "stream": http.get(f"/flow-runs/{run}/trace/stream"),
        "export": http.get(f"/flow-runs/{run}/export"),
        "by a session": browser.get("/flow-runs"),
        "sign-in": http.post("/viewer/session"),
        "HEAD": http.head("/flow-runs"),
        "401": nobody.get("/flow-runs"),
        "404": http.get("/nothing"),
        "405": http.put("/flow-runs"),
        "422": http.get("/flow-runs?limit=x"),
        "no content": http.get(f"{payload}?part=error"),
        "health": nobody.get(f"{server.address}/health"),
        "payload": http.get(payload),
        "304": http.get(payload, headers=known),
        "description": nobody.get(f"{server.address}/docs/openapi.json"),
    }
    found = {name: answer.headers.get("cache-control") for name, answer in answers.items()}
    assert found == dict.fromkeys(answers, "no-store") | dict.fromkeys(
        ("payload", "304"), "private, no-cache"
    )
    assert [answers[name].status_code for name in ("payload", "304")] == [200, 304]
    with raw_connection(server) as connection:
        connection.sendall(b"nothing that is HTTP\r\n\r\n")
        status, headers, _ = read_answer(connection)
    assert (status, headers["x-content-type-options"]) == (400, "nosniff")
    for name, answer in answers.items():
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], name


def test_the_page_of_the_api_lets_nothing_else_in_and_sends_no_cookie(page: httpx2.Client) -> None:
    answer = page.get("/docs")
    policy = answer.headers["content-security-policy"]
    assert re.sub("'sha256-[^']+'", "'self'", policy) == CSP
    for part in ("script", "style"):
        (content,) = re.findall(f"<{part}>(.*?)</{part}>", answer.text, re.S)
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    calls = re.findall(r"fetch\([^;]*?\)", answer.text)
    assert len(calls) == 2
    assert all('credentials: "omit"' in call for call in calls)


def ticket(http: httpx2.Client, page: str = "/") -> str:
    answer = http.post("/viewer/tickets", json={"page": page})
    assert answer.status_code == 201
    assert answer.json()["expiresInS"] == 60
    return str(answer.json()["path"])


def test_a_ticket_signs_in_once_and_leads_to_its_page(server: RunningServer, http: httpx2.Client) -> None:
    """Who only looks where it leads does not use it up."""
    path = ticket(http, f"/runs/{RUN}?step=a&tab=output")
    with httpx2.Client(base_url=server.address, timeout=LONGEST_S) as client:
        looked = client.head(path)
        assert (looked.status_code, looked.headers["cache-control"]) == (204, "no-store")
        assert "set-cookie" not in looked.headers
        answer = client.get(path)
        page, _, proof = answer.headers["location"].partition("#proof=")
        assert (answer.status_code, page) == (303, f"/runs/{RUN}?step=a&tab=output")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert client.get("/api/v1/viewer/me", headers={PROOF: proof}).json()["role"] == "admin"
        assert refusal(client.get("/api/v1/viewer/me")) == (401, "UNAUTHENTICATED")
    with httpx2.Client(base_url=server.address, timeout=LONGEST_S) as client:
        again = client.get(path)
        assert (again.status_code, again.headers["location"]) == (303, "/?ticket=used")
        assert "set-cookie" not in again.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "runs.example"},
        {"Host": "10.0.0.1:8080"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=x"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_ticket_is_for_this_machine_alone_and_for_no_link_of_another_site(
    page: httpx2.Client, http: httpx2.Client, headers: dict[str, str]
) -> None:
    path = ticket(http)
    assert refusal(page.get(path, headers=headers)) == (403, "FORBIDDEN")
    opened = page.get(path, headers={"Host": "localhost:8080", "Sec-Fetch-Site": "none"})
    assert opened.headers["location"].startswith("/#proof=")


def test_a_revoked_key_ends_its_sessions_their_streams_and_its_tickets(
    server: RunningServer, page: httpx2.Client, http: httpx2.Client
) -> None:
    key = server.make_key("acme", "demo", "read")
    with http_for(server, key) as caller:
        path = ticket(caller)
    with signed_in(server, key) as browser, browser.stream("GET", "/flow-runs/stream") as answer:
        parts = answer.iter_text()
        assert next(parts)
        assert http.delete(f"/keys/{known_key(server, key).id}").status_code == 200
        assert refusal(browser.get("/viewer/me")) == (401, "UNAUTHENTICATED")
        assert "event:" not in "".join(parts)
    assert page.get(path).headers["location"] == "/?ticket=used"

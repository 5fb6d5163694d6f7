"""Arguments and environment become an endpoint, or a message that says what to do."""

import math
from typing import Any

import pytest

from runglass import AsyncClient, AuthenticationError, Client
from runglass.client.core.connection import DEFAULT_BASE_URL, ServerConnection, endpoint


def made(**given: Any) -> ServerConnection:
    usual: dict[str, Any] = {"api_key": "nk_test", "base_url": None, "timeout": 60.0, "max_retries": 2}
    return endpoint(**usual | {"environ": {}} | given)


def test_arguments_win_over_the_environment_and_the_environment_over_defaults() -> None:
    environ = {"RUNGLASS_API_KEY": "nk_env\n", "RUNGLASS_BASE_URL": "https://env.example/api/v1"}
    assert made(api_key=None, environ=environ).api_key == "nk_env"
    assert made(environ=environ).api_key == "nk_test"
    assert made(environ=environ).base_url == "https://env.example/api/v1"
    assert made(base_url="http://arg.example/x", environ=environ).base_url == "http://arg.example/x"
    assert made().base_url == DEFAULT_BASE_URL == "http://localhost:8080/api/v1"


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_client_reads_the_environment_and_shows_no_key(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNGLASS_API_KEY", "nk_env")
    monkeypatch.setenv("RUNGLASS_BASE_URL", "http://env.example:1/x/")
    assert repr(client()) == f"{client.__name__}(base_url='http://env.example:1/x')"
    assert "nk_env" not in repr(endpoint(api_key=None, base_url=None, timeout=None, max_retries=0))


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_missing_key_says_where_to_get_one(client: Any) -> None:
    with pytest.raises(AuthenticationError, match=r"RUNGLASS_API_KEY.*runglass keys create"):
        client()


@pytest.mark.parametrize("key", ["sk_secret", "nk_", "nk_se cret", "nk_se\ncret", "nk_secrét"])
def test_a_key_that_cannot_be_one_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(AuthenticationError, match="nk_") as caught:
        made(api_key=key)
    assert "cr" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "ftp://host/api",
        "http://",
        "http://host:99999",
        "http://host/api?x=1",
        "http://user:secret@host/api",
        "http://[::1",
        "http://999.1.1.1",
        "/api/v1",
        "http://h/\ud800",
    ],
)
def test_a_base_url_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"base_url .* cannot be used"):
        Client("nk_test", base_url=url)


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTP_PROXY", "http://[::1"),
        ("HTTPS_PROXY", "what://127.0.0.1:9"),
        ("SSL_CERT_FILE", "/none"),
    ],
)
def test_a_proxy_or_certificates_of_the_environment_that_cannot_be_used_are_refused_before_any_call(
    client: Any, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"of the environment .*{name}.* cannot be used: "):
        client("nk_test", base_url="https://host").run("r")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/api/v1"),
        ("http://[::1]:8080//", "http://[::1]:8080/api/v1"),
        ("http://host/api/v1", "http://host/api/v1"),
        ("https://host/runglass/api/v1/", "https://host/runglass/api/v1"),
    ],
)
def test_a_url_without_a_path_gets_that_of_the_api_and_any_other_is_taken_as_it_is(
    given: str, used: str
) -> None:
    assert made(base_url=given).base_url == used
    assert made(environ={"RUNGLASS_BASE_URL": given}).base_url == used


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout", value) for value in (0, -1, math.nan, True, "60")),
        *(("max_retries", value) for value in (-1, 1.5, True, "2")),
    ],
)
def test_what_is_no_time_and_no_count_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        made(**{name: value})
    if name == "timeout":
        with pytest.raises(ValueError, match="timeout must be"):
            made().bound_s(value)


def test_the_calls_timeout_wins_over_the_clients_and_both_can_be_unbounded() -> None:
    assert made(timeout=60).bound_s(None) == 60
    assert made(timeout=60).bound_s(5) == 5
    assert made(timeout=60).bound_s(math.inf) == made(timeout=60).bound_s(10**400) == math.inf
    assert made(timeout=None).bound_s(None) == math.inf

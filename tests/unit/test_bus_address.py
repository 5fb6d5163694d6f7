"""The address of a NATS bus."""

import pytest

from runglass.config.address import is_nats, parse_nats_address, shown_address
from runglass.config.settings import Settings, SettingsError


def test_an_address_has_servers_credentials_a_prefix_and_files() -> None:
    parsed = parse_nats_address("tls://me:p%40ss@one:4222,[::1]:4333/acme?ca=/a/ca.pem&cert=c&key=k")
    assert parsed.servers == ["tls://one:4222", "tls://[::1]:4333"]
    assert (parsed.user, parsed.password, parsed.token) == ("me", "p@ss", None)
    assert (parsed.prefix, parsed.is_tls, parsed.ca, parsed.cert, parsed.key) == (
        "acme",
        True,
        "/a/ca.pem",
        "c",
        "k",
    )
    plain = parse_nats_address("nats://token@host")
    assert (plain.user, plain.password, plain.token) == (None, None, "token")
    assert (plain.prefix, plain.is_tls, plain.ca) == ("runglass", False, None)
    assert parse_nats_address("nats://host").token is None


@pytest.mark.parametrize(
    "address",
    [
        "nats://",
        "nats://me:secret@",
        "nats://me:sec/ret@host",
        "nats://me:secret@host:4222/a b",
        "nats://me:secret@host/a.>",
        "nats://me:secret@host/?insecure=1",
        "nats://me:secret@host/?cert=c",
        "nats://me:secret@host\n:4222",
        "tls://secret@host@other",
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(address: str) -> None:
    assert is_nats(address)
    with pytest.raises(ValueError, match=r"it (is no address|has an unknown option)|needs both") as refusal:
        parse_nats_address(address)
    assert "secret" not in str(refusal.value)
    assert "secret" not in shown_address(address)
    assert "secret" not in repr(Settings(bus=address))


def test_no_message_shows_password_or_token() -> None:
    for address in ("nats://me:secret@host:4222/x?ca=f", "nats://secret@host:4222"):
        parsed = parse_nats_address(address)
        assert "secret" not in f"{parsed!r} {parsed.shown}"
        assert "host:4222" in parsed.shown


def test_without_a_setting_the_store_brings_the_bus() -> None:
    assert Settings().bus_address is None
    assert Settings(store="sqlite:///x").bus_address is None
    assert Settings(store="postgresql://u@h/d").bus_address == "postgresql://u@h/d"
    assert Settings(store="postgresql://u@h/d", bus="memory://").bus_address is None
    assert Settings(store="postgresql://u@h/d", bus="nats://n").bus_address == "nats://n"
    assert Settings(store="postgresql://pool/d", bus="postgresql://u@h/d").bus_address == "postgresql://u@h/d"
    assert Settings(bus="nats://n").bus_address == "nats://n"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (Settings(bus="redis://:secret@host"), "use nats://host:4222"),
        (Settings(bus=""), "use nats://host:4222"),
        (Settings(bus="postgresql://u:secret@h/d"), "store is not"),
        (Settings(store="postgresql://u@h/d", bus="postgresql://u:sec/ret@h/d"), "no address as postgresql"),
    ],
)
def test_an_unfit_bus_is_refused_without_showing_it(settings: Settings, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as refusal:
        _ = settings.bus_address
    assert "secret" not in str(refusal.value)

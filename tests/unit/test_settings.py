"""Settings: where they come from, which wins, and what a wrong one says; and the address of the bus."""

from pathlib import Path

import pytest

from runglass.config import reader as settings_reader
from runglass.config.address import is_nats, parse_nats_address, shown_address
from runglass.config.reader import read_settings
from runglass.config.settings import Settings, SettingsError


def test_defaults_stand_where_nothing_is_said() -> None:
    assert read_settings(environment={}) == Settings()


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "runglass.toml"
    # As editors on Windows write it.
    file.write_bytes(b'\xef\xbb\xbfport = 1\r\nhost = "file"\r\ncapture = "off"\r\n')
    environment = {"RUNGLASS_PORT": "2", "RUNGLASS_HOST": "environment", "OTHER": "x"}
    settings = read_settings({"port": 3, "data": None}, environment=environment, file=file)
    assert settings == Settings(port=3, host="environment", capture="off", data=Path("runglass-data"))


def test_a_folder_given_as_a_flag_wins_over_a_store_from_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "runglass.toml"
    file.write_text('store = "sqlite:///file.db"\n')
    environment = {"RUNGLASS_STORE": "sqlite:///environment.db"}
    for known in ({}, environment):
        assert read_settings({"data": "d"}, environment=known, file=file).database == Path("d/runglass.db")
    both = {"data": "d", "store": "sqlite:///flag.db"}
    assert read_settings(both, environment=environment, file=file).database == Path("flag.db")
    of_the_environment = read_settings({"data": None}, environment=environment, file=file)
    assert of_the_environment.database == Path("environment.db")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RUNGLASS_PORT": "many"}, "RUNGLASS_PORT.*int"),
        ({"RUNGLASS_CAPTURE": "some"}, "RUNGLASS_CAPTURE.*some.*'full', 'metadata_only', 'off', 'redacted'$"),
        ({"RUNGLASS_CAPTURE": "\udcff"}, "RUNGLASS_CAPTURE is not UTF-8 text$"),
        ({"RUNGLASS_PROVIDER_KEYS": '{"openai": "sk\udcff"}'}, "RUNGLASS_PROVIDER_KEYS is not UTF-8 text$"),
        ({"RUNGLASS_REDACT_KEYS": "[1"}, "RUNGLASS_REDACT_KEYS.*JSON"),
        ({"RUNGLASS_LEASE_S": "inf"}, r"RUNGLASS_LEASE_S.* <= 10000000000\.0"),
        ({"RUNGLASS_PAUSE_LIMIT_H": "1e7"}, r"RUNGLASS_PAUSE_LIMIT_H.* <= 1000000\.0"),
        ({"RUNGLASS_ANSWER_TTL_S": "inf"}, r"RUNGLASS_ANSWER_TTL_S.* <= 10000000000\.0"),
        ({"RUNGLASS_RECORDING_SETTLE_S": "inf"}, r"RUNGLASS_RECORDING_SETTLE_S.* <= 10000000000\.0"),
        ({"RUNGLASS_RECORDING_IDLE_S": "1e12"}, r"RUNGLASS_RECORDING_IDLE_S.* <= 10000000000\.0"),
    ],
)
def test_a_wrong_variable_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(environment=environment)


def read_with(environment: dict[str, str]) -> tuple[Settings, list[str]]:
    warnings: list[str] = []
    return read_settings(environment=environment, warn=warnings.append), warnings


def test_a_variable_that_is_no_setting_is_a_warning_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_reader, "warned", set())
    environment = {"RUNGLASS_PROT": "1", "RUNGLASS_APIKEY": "nk_secret", "RUNGLASS_X": "1"}
    said = "environment variable RUNGLASS_{} is ignored: there is no setting '{}'{}".format
    assert read_with(environment) == (
        Settings(),
        [
            said("PROT", "prot", "; did you mean RUNGLASS_PORT?"),
            said("APIKEY", "apikey", "; did you mean RUNGLASS_API_KEY?"),
            said("X", "x", ""),
        ],
    )
    assert read_with(environment) == (Settings(), [])


def test_the_variables_of_a_service_in_kubernetes_are_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_reader, "warned", set())
    link = "tcp://10.96.0.17:8080"
    settings, warnings = read_with(
        {
            "RUNGLASS_SERVICE_HOST": "10.96.0.17",
            "RUNGLASS_SERVICE_PORT": "8080",
            "RUNGLASS_SERVICE_PORT_HTTP": "8080",
            "RUNGLASS_PORT": link,
            "RUNGLASS_PORT_8080_TCP": link,
            "RUNGLASS_PORT_8080_TCP_PROTO": "tcp",
            "RUNGLASS_PORT_8080_TCP_PORT": "8080",
            "RUNGLASS_PORT_8080_TCP_ADDR": "10.96.0.17",
            "RUNGLASS_WEB_SERVICE_HOST": "10.96.0.18",
            "RUNGLASS_WEB_PORT": link,
        }
    )
    assert settings == Settings()
    (warning,) = warnings
    assert link in warning
    assert "Kubernetes" in warning


@pytest.mark.parametrize("text", ["port = 'x'", "port = = 1", None], ids=["value", "syntax", "missing"])
def test_a_wrong_or_missing_file_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "runglass.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=r"runglass\.toml"):
        read_settings(environment={}, file=file)


def test_the_database_is_in_the_data_folder_unless_the_store_says_otherwise() -> None:
    assert Settings(data=Path("d")).database == Path("d/runglass.db")
    assert Settings(store="sqlite:///other.db").database == Path("other.db")
    assert Settings(store="sqlite:////var/other.db").database == Path("/var/other.db")


def test_a_database_whose_links_lead_nowhere_is_refused(tmp_path: Path) -> None:
    for name, target in (("a.db", "b.db"), ("b.db", "a.db")):
        (tmp_path / name).symlink_to(target)
    with pytest.raises(SettingsError, match=r"a\.db' cannot be found: .*loop"):
        _ = Settings(store=f"sqlite:///{tmp_path / 'a.db'}").database


def test_keys_and_urls_that_may_hold_one_are_not_shown() -> None:
    key = "sk-a-very-secret-key"
    settings = Settings(
        provider_keys={"openai": key},
        providers={"local": f"http://me:{key}@host/v1?key={key}"},
        otlp_endpoint=f"http://{key}@host",
        otlp_headers={"x-key": key},
        port=9,
    )
    shown = repr(settings)
    assert key not in shown
    assert all(part in shown for part in ("port=9", "openai", "local", "x-key"))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (
            "postgresql://me:top5ecret@db.example:5433/shop?sslmode=require",
            "postgresql://db.example:5433/shop",
        ),
        ("postgresql:///shop?host=/run/postgresql", "postgresql:///shop"),
    ],
)
def test_of_a_database_s_address_its_place_alone_is_shown(address: str, shown: str) -> None:
    settings = Settings(store=address)
    assert settings.postgres == address
    assert settings.store_name == shown
    assert "top5ecret" not in repr(settings)
    assert shown in repr(settings)
    with pytest.raises(SettingsError, match="not supported here") as raised:
        _ = settings.database
    assert "top5ecret" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://me:top5ecret/x@host/shop", "%2F"),
        ("postgresql://me:x?top5ecret@host/shop", "%2F"),
        ("postgresql://me:x#top5ecret@host/shop", "%2F"),
        ("postgresql://me:x@top5ecret@host/shop", "%2F"),
        ("postgresql://me:top5ecret/shop", "%2F"),
        ("postgresql://me@host/shop?password=x@top5ecret", "%2F"),
        ("mysql://me:top5ecret@host/shop", "store 'mysql://…' is not supported here"),
        ("me:top5ecret@host/shop", "store '…' is not supported here"),
        ("sqlite:///:memory:", "store 'sqlite:///:memory:' is not supported here"),
    ],
)
def test_an_unfit_store_is_refused_without_its_password(address: str, said: str) -> None:
    settings = Settings(store=address)
    with pytest.raises(SettingsError, match=said) as raised:
        _ = settings.store_name
    assert "top5ecret" not in str(raised.value) + repr(settings)


def test_answers_are_kept_until_callers_have_heard_of_them() -> None:
    shared = "postgresql://runglass@db.example/runglass"
    assert 0 < Settings(answer_ttl_s=0).kept_for_callers_s < Settings(answer_ttl_s=9).kept_for_callers_s
    assert Settings(answer_ttl_s=0, store=shared).kept_for_callers_s > 2 * Settings().tail_poll_s
    assert Settings(answer_ttl_s=3600, store=shared).kept_for_callers_s == 3600


def test_an_address_has_servers_a_prefix_files_and_credentials_that_are_not_shown() -> None:
    parsed = parse_nats_address("tls://me:p%40ss@one:4222,[::1]:4333/acme?ca=/a/ca.pem&cert=c&key=k")
    servers = ["tls://one:4222", "tls://[::1]:4333"]
    assert tuple(parsed) == (servers, "me", "p@ss", None, "acme", True, "/a/ca.pem", "c", "k")
    plain = parse_nats_address("nats://p%40ss@host")
    assert (plain.user, plain.password, plain.token) == (None, None, "p@ss")
    assert (plain.prefix, plain.is_tls, plain.ca) == ("runglass", False, None)
    assert repr([parsed, plain]) == "[NatsAddress(tls://one:4222,tls://[::1]:4333), NatsAddress(nats://host)]"
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

"""Secrets are found wherever they stand, what only looks like one stays, and no text makes that slow."""

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runglass.redact import MARK, Redactor
from runglass.redact.own_patterns import OwnPatterns
from tests.unit.engine.redaction_corpus import TOKENS

REDACTOR = Redactor()
SECRETS = [secret for _, secret, _ in TOKENS]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("with bearer abcdefghijklmnopqrstuvwxyz", f"with bearer {MARK}"),
        ("Authorization: Basic dXNlcjpwYXNz", f"Authorization: Basic {MARK}"),
        ("postgres://user:p@ss@host:5432/db", f"postgres://{MARK}@host:5432/db"),
        ('{"apiKey": "a \\" b", "x": "y"}', f'{{"apiKey": "{MARK}", "x": "y"}}'),
        (
            '{"arguments": "{\\"password\\": \\"hunter2\\"}"}',
            f'{{"arguments": "{{\\"password\\": \\"{MARK}\\"}}"}}',
        ),
        ("{'client_secret': 'a b c'}", f"{{'client_secret': '{MARK}'}}"),
        ("password=hunter2&x=1 AccountKey=abc/def==;x", f"password={MARK}&x=1 AccountKey={MARK};x"),
        ("Cookie: a=b; c=d\nnext", f"Cookie: {MARK}\nnext"),
        ("Authorization: Bearer abcdef1", f"Authorization: Bearer {MARK}"),
        ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4\n\nMII\n-----END RSA PRIVATE KEY-----", MARK),
        ("-----BEGIN PRIVATE KEY-----\\nMII\\n-----END PRIVATE KEY-----\\n", f"{MARK}\\n"),
        ("cut off: -----BEGIN EC PRIVATE KEY-----\nMIIabc", f"cut off: {MARK}"),
        ("password: hunter two\nuser: bob", f"password: {MARK}\nuser: bob"),
        (
            "password1=abc db_password_prod: x, tokenValue=y",
            f"password1={MARK} db_password_prod: {MARK}, tokenValue={MARK}",
        ),
        ("https://h/p?sv=1&sig=a%2Bb&key=c#d", f"https://h/p?sv=1&sig={MARK}&key={MARK}#d"),
        ("12345 4111 1111 1111 1111, and 5555555555554444", f"12345 {MARK}, and {MARK}"),
        ("nk_7f3a9c21, xoxp-999999999999-abcdef, ya29.a0Af-1234567890.", f"{MARK}, {MARK}, {MARK}."),
        ("it is whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw.", f"it is {MARK}."),
        ("it is jane.doe+test@mail.example.co.uk.", f"it is {MARK}."),
    ],
)
def test_what_is_around_a_secret_stays(text: str, shown: str) -> None:
    assert REDACTOR.text(text) == shown
    assert REDACTOR.text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 50, total_tokens=7, tokenizer: bpe",
        "https://host/path?x=1&monkey=2#y@z",
        "01a22876-4375-7204-935d-98c56af0fae4",
        "run 01A22876-4375-7204-935D-98C56AF0FAE4 of it",
        "0.4111111111111111",
        "41111111111111111111",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert REDACTOR.text(text) == text


TELLING = (
    "password apiKey api_key x-api-key Authorization access_token refresh.token secret Set-Cookie sessionId"
    " AWS_SECRET_ACCESS_KEY privateKey credentials password1 db_password_prod tokenValue AccountKey"
)
NOT_TELLING = (
    "tokens max_tokens maxTokens tokenizer token_count passwordHash token_type token_used_at key monkey text"
)


@pytest.mark.parametrize("key", TELLING.split())
def test_what_stands_under_a_telling_key_goes_whatever_it_is(key: str) -> None:
    for value in ("x", 7, ["x"], {"a": {"b": "x"}}, ""):
        assert REDACTOR.redact({"a": [{key: value, "b": 1}]}) == {"a": [{key: MARK, "b": 1}]}
    for empty in (None, True, False):
        assert REDACTOR.redact({key: empty}) == {key: empty}


def test_numbers_that_are_measured_are_no_secrets() -> None:
    measured = {
        "gen_ai.server.time_per_output_token": 0.25,
        "gen_ai.server.time_to_first_token": 412,
        "llm.usage.max_token": 0.5,
        "llm.token_count.prompt": 12,
        "hidden": '{"time_per_output_token": 0.25}',
    }
    assert REDACTOR.redact(measured) == measured
    assert REDACTOR.redact({"first_token": "x", "apiKey": 12345}) == {"first_token": MARK, "apiKey": MARK}


@pytest.mark.parametrize(
    "id", ["4111111111111111abcdefabcdefabcd", "ab4111111111111111cdefabcdefabcd", "abc4000000000006"]
)
def test_an_id_of_a_trace_or_a_span_is_no_card(id: str) -> None:
    sent = {"id": id, "text": f"span {id} of {id}/1"}
    assert REDACTOR.redact(sent) == sent
    card = "4111111111111111"
    assert REDACTOR.redact({"text": f"{id} {card} {card}"}) == {"text": f"{id} {MARK} {MARK}"}


@pytest.mark.parametrize("key", NOT_TELLING.split())
def test_other_keys_do_not_tell(key: str) -> None:
    assert REDACTOR.redact({key: "x", "a": {key: 7}}) == {key: "x", "a": {key: 7}}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([{"name": "password", "value": "x"}], [{"name": "password", "value": MARK}]),
        ([{"Key": "db_password", "Value": ["x"]}], [{"Key": "db_password", "Value": MARK}]),
        ([["X-Api-Key", "x"], ["Accept", "y"]], [["X-Api-Key", MARK], ["Accept", "y"]]),
        ({"name": "password", "value": None}, {"name": "password", "value": None}),
        ({"name": "password", "type": "string"}, {"name": "password", "type": "string"}),
        ({"name": "colour", "value": "x"}, {"name": "colour", "value": "x"}),
    ],
)
def test_a_secret_may_stand_beside_its_name(value: Any, shown: Any) -> None:
    assert REDACTOR.redact(value) == shown
    assert REDACTOR.redact(shown) == shown


def test_secrets_told_by_keys_are_struck_from_other_texts() -> None:
    given = {
        "password": "hun\nter'2",
        "a": [{"name": "token", "value": "abcd"}],
        "pin": {"secret": 12345},
        "b": "user",
    }
    secrets = REDACTOR.secrets_in({**given, "cvv": "123", "steps": [["X-Api-Key", "abcdef"]]})
    assert secrets == {"hun\nter'2", "abcd", "12345", "abcdef"}
    error = {
        "message": f"KeyError: {'hun' + chr(10) + chr(39)!r} abcdef abcd user 123",
        "details": ["hun\nter'2", 12345],
    }
    error["quoted"] = repr(given["password"]) + json.dumps(given["password"])
    struck = REDACTOR.strike(error, secrets)
    assert struck["message"].endswith(f" {MARK} {MARK} user 123")
    assert struck["details"] == [MARK, 12345]
    assert "ter" not in struck["quoted"]


def test_values_are_copied_and_not_changed() -> None:
    value = {
        "a": [{"password": "x"}, {"text": "mail a.b@example.com"}],
        "n": 1.5,
        "t": ("x", 4111111111111111),
    }
    before = copy.deepcopy(value)
    shown = REDACTOR.redact(value)
    assert value == before
    assert shown == {"a": [{"password": MARK}, {"text": f"mail {MARK}"}], "n": 1.5, "t": ["x", MARK]}
    assert shown["a"] is not value["a"]


def test_keys_that_are_secrets_themselves_stay_apart() -> None:
    given = {"a.b@example.com": 1, "x": 2, "c.d@example.com": 3, "sk-proj-AbC123dEf456GhI": 4}
    shown = REDACTOR.redact(given)
    assert list(shown.values()) == [1, 2, 3, 4]
    assert not any("@" in key or "AbC" in key for key in shown)


def test_depth_does_not_matter() -> None:
    value: Any = {"password": "x"}
    for _ in range(5000):
        value = [value]
    shown = REDACTOR.redact(value)
    for _ in range(5000):
        shown = shown[0]
    assert shown == {"password": MARK}


def test_users_add_keys_and_patterns() -> None:
    redactor = Redactor(extra_keys=["patientName", "größe"], extra_patterns=[r"ACME-\d+", r"x*y|"[:-1]])
    value = {"patient_name": "x", "GRÖSSE": 7, "text": "see ACME-123, patient name: bob", "y": 1}
    encoded = msgspec.json.encode(value)
    assert redactor.may_hold_secrets(encoded)
    assert redactor.redact(value) == {
        "patient_name": MARK,
        "GRÖSSE": MARK,
        "text": f"see {MARK}, patient name: {MARK}",
        MARK: 1,
    }
    assert REDACTOR.redact({"text": "see ACME-123"}) == {"text": "see ACME-123"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"extra_patterns": ["fine", "(open"]}, r"pattern '\(open' is not a regular expression: missing \)"),
        ({"extra_patterns": ["a*"]}, r"pattern 'a\*' matches the empty text"),
        ({"extra_keys": ["--"]}, "a key to redact must have a letter or a digit"),
    ],
)
def test_a_rule_that_cannot_be_used_is_named(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Redactor(**rules)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
places = st.sampled_from(["text", "list", "key", "under", "json", "pair", "number"])


@given(json_values, st.sampled_from(SECRETS), places, st.text('ab ,.\n"', max_size=5))
@example(None, SECRETS[0], "json", '"')
def test_no_planted_secret_is_left(value: Any, secret: str, place: str, space: str) -> None:
    text = f"{space} {secret} {space}"
    planted = {
        "text": {"a": value, "b": text},
        "list": {"a": [value, [text]]},
        "key": {text: value, "a": {text: {text: 1}}},
        "under": {"a": {"Password": [value, "plain"]}, "b": secret},
        "json": {"a": json.dumps({"x": text, "y": value})},
        "pair": {"a": f"{space}secret={secret}"},
        "number": {"a": [4111111111111111], "b": value, "c": text},
    }[place]
    encoded = msgspec.json.encode(planted)
    assert REDACTOR.may_hold_secrets(encoded)
    shown = msgspec.json.encode(REDACTOR.redact(planted)).decode()
    assert secret not in shown
    assert "4111111111111111" not in shown or place != "number"


@given(json_values)
def test_what_may_hold_no_secret_is_not_changed_by_redacting(value: Any) -> None:
    encoded = msgspec.json.encode(value)
    if not REDACTOR.may_hold_secrets(encoded):
        assert msgspec.json.encode(REDACTOR.redact(value)) == encoded


@given(json_values)
def test_redacting_twice_is_redacting_once(value: Any) -> None:
    once = REDACTOR.redact(value)
    assert REDACTOR.redact(once) == once


def test_an_error_with_too_many_secrets_to_look_for_is_struck_whole() -> None:
    secrets = REDACTOR.secrets_in([{"token": f"secret-{number}"} for number in range(5_000)])
    struck = REDACTOR.strike({"code": "x", "message": "it was secret-4711", "line": 3}, secrets)
    assert struck == {"code": "x", "message": MARK, "line": 3}


@pytest.mark.parametrize("pattern", [r"(a|a)+!?$", r"(x+x+)+y"])
def test_a_users_pattern_that_never_ends_leaves_out_the_text(
    pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    redactor = Redactor(extra_patterns=[pattern])
    text = "a" * 60 + "!" + "x" * 4000
    assert redactor.redact({"k": [text + str(i) for i in range(5)]}) == {"k": [MARK] * 5}
    assert caplog.text.count("redact_patterns") == 1
    assert redactor.text("fine, short") == "fine, short"


def test_users_patterns_find_what_pythons_own_engine_finds() -> None:
    own = OwnPatterns([r"(?i)acme-\d+", r"\bx{3}\b"])
    assert own.find("see ACME-12 and xxx, not xxxx") == [(4, 11), (16, 19)]

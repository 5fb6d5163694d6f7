"""No text makes redaction slow: eight times the text takes about eight times as long, whatever it is made of."""
# ruff: noqa: E501, RUF001 -- one pair, one line; look-alike letters are the point

import re
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from runglass.redact import Redactor, strike_known
from runglass.redact.rules import COMMANDS, IN_BYTES, PATTERNS, WEAK
from tests.gains.timing import LINEAR, growth
from tests.unit.engine.redaction_corpus import TOKENS

REDACTOR = Redactor()
SHORT, QUICK_S = 4_000, 0.05
Work = Callable[[], object]
BEGUN_TOKENS = [secret[: len(secret) // 2] for _, secret, _ in TOKENS]
"""For each pattern of a token a text that goes half the way."""
NAMES = """
password:|password |password:must |password: is |password:"|password:\\"|password=\\'|password='|password:`|password=a;b=
token=token=|token=token=(|unexpected token:|illegal token:x; a=|token: |secret_secret_|api.key.|mot de passe |密码：
pass:|pass="|pass='|pass:\\"|userPass|pin.|pin 1|pin is |pin is 12|code is your |123456 is your |tel: (|phone 12/
password is now |password for the |password was set to |name="a" value=|key=a,,,, |<a>|<a |</a><a>|<token>|<![CDATA[
token: |\n a\n|--password |--x|-|curl -u |curl -u a:|docker login |mysql -p|openssl pass:|machine a.b login |a:5432:b:c:
""".strip().split("|")
SHAPES = """
a@|@|a.|@a.|a@b.|://|://a|thin:a/|?sig=|&key=|bearer |basic a|eyJ|eyJa.|éeyJ|eyJaaaaaa.|-----BEGIN RSA PRIVATE KEY-----
-----BEGIN PRIVATE KEY-----a|PuTTY-User-Key-File-2:|hooks.slack.com/services/|sk-|sk-a |nk_|xox|SG.|Mabcdefghijklmnopqrstuvwx.
1|4 |4111 |41-|+1|+1 (|(415) |415-555-|0049 1|06 12 |DE89|DE89 |de89 1|123-45-|00491|A_|aaaaaaaaaaaaaaaa-|x8Q~
%70|%C3|%25|\\u0070|\\x70|\\|&#112;|&amp;|а|аb|сор |пароль:|\u200b|a\u200b|ｐａｓｓ|QUFB|cGFzcw|70617373|AAAA/
""".strip().split("|")
WHOLE = (
    """
docker login -p x |sshpass -p x |redis-cli -a x |mongo -p x |sqlcmd -P x |ldapsearch -w x |7z -px |smbclient -U a%b |openssl -in pass:x,
snmpget -A x |curl -u a:b |machine a.b login c password d |12345678-1234-1234-1234-123456789012 |abc4000000000006 |token: 0.25 |token: a( |token is 12px, |-code 0000
your PIN is 5930 |482913 is your login code |<token>a</token>|<a name="token">b</a>|4111 1111 1111 1111 |DE89 3704 0044 0532 0130 00,
123-45-6789 |01a22876-4375-7204-935d-98c56af0fae4 |+44 20 7946 0958 |(415) 555-0132 |415-555-0132 |020 7946 0958 |+12345678 |+49 12 34 56 |fm2_a,|\x01|pin,|pin "
auth: abc123:d |bearer: abcdefg1 |pin: 5930 |otp: a1234 |phone: 555 0132 99
https://hooks.slack.com/services/T0/B0/aaaaaaaaaaaaaaaaaaaa |x://a:b@c |thin:a/b@c |bearer abc123def |сookіе |соокіе
""".strip()
    .replace("\n", "|")
    .split("|")
)
"""Whole matches, for patterns that do not match a part of one."""
SEEDS = list(dict.fromkeys([*BEGUN_TOKENS, *NAMES, *SHAPES, *WHOLE]))


def _look_through(text: str) -> None:
    REDACTOR.text(text)
    REDACTOR.may_hold_secrets(msgspec.json.encode(text))
    for pattern in WEAK.values():
        pattern.fullmatch(text)


@pytest.mark.parametrize("ways", range(6))
def test_texts_made_to_hurt_take_linear_time(ways: int) -> None:
    for seed in SEEDS[ways::6]:
        for before, after in (("", ""), (seed, "]")):
            part = "a" if before else seed

            def looking(length: int, before: str = before, part: str = part, after: str = after) -> Work:
                text = before + part * (length // len(part)) + after
                return lambda: _look_through(text)

            # Only of what takes long does it matter how it grows.
            began_s = time.process_time()
            looking(4 * SHORT)()
            if time.process_time() - began_s > QUICK_S:
                assert growth(looking, SHORT) < LINEAR, before + part


class Asked:
    """A compiled pattern that remembers whether it found anything."""

    def __init__(self, pattern: re.Pattern[Any], name: str) -> None:
        self.name = name
        self.pattern = pattern.pattern
        self.has_found = False
        self._pattern = pattern

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._pattern, name)

        def ask(*args: Any) -> Any:
            result = method(*args)
            result = list(result) if name == "finditer" else result
            self.has_found = self.has_found or bool(result)
            return iter(result) if name == "finditer" else result

        return ask


def test_every_pattern_is_among_those_whose_time_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one needs a text of which it finds a part: else nobody would see that it is slow."""
    asked: dict[re.Pattern[Any], Asked] = {}
    tables: list[dict[str, re.Pattern[Any]]] = [PATTERNS, COMMANDS, WEAK, IN_BYTES]
    for table in tables:
        for name, pattern in list(table.items()):
            monkeypatch.setitem(table, name, asked.setdefault(pattern, Asked(pattern, name)))
    redactor = Redactor()
    for seed in SEEDS:
        for before, after in (("", ""), (seed, "]")):
            redactor.text(before + ("a" if before else seed) * 10 + after)
            redactor.may_hold_secrets(msgspec.json.encode([seed * 40]))
            redactor.redact([seed * 40])
    assert len(asked) > 50
    unfound = [pattern.name for pattern in asked.values() if not pattern.has_found]
    assert not unfound, "\n".join(unfound)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: {"a": [{"token": f"x{i}"} for i in range(n)]},
        lambda n: {f"token{i}": "abcd" for i in range(n)},
        lambda n: {"token": [f"x{i}" for i in range(n)]},
    ],
    ids=["in rows", "under many keys", "under one key"],
)
def test_many_values_under_a_telling_key_are_linear(make: Callable[[int], Any]) -> None:
    def redacting(count: int) -> Callable[[], object]:
        value = make(count)
        return lambda: [
            REDACTOR.redact(value),
            REDACTOR.strike({"message": "abcd" * 100}, REDACTOR.secrets_in(value)),
        ]

    assert growth(redacting, 1_000) < LINEAR


@pytest.mark.parametrize("seed", ["key-0000", "%6b", "a"])
def test_known_secrets_are_struck_in_linear_time(seed: str) -> None:
    secrets = [f"key-{number:040}" for number in range(20)]

    def striking(length: int) -> Callable[[], object]:
        text = seed * (length // len(seed))
        return lambda: strike_known(text, secrets, "[key]")

    assert growth(striking, 2_000) < LINEAR

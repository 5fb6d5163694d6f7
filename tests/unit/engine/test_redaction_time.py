"""No text makes redaction slow: four times the text takes about four times as long, whatever it is made of."""
# ruff: noqa: E501, RUF001 -- one pair, one line; look-alike letters are the point

import time
from collections.abc import Callable

import pytest

from runglass.engine.redaction import MARK, Redactor, strike_known
from runglass.engine.redaction.own_patterns import OwnPatterns
from tests.unit.engine.redaction_corpus import TOKENS

REDACTOR = Redactor()
SHORT, LONG = 4_000, 16_000
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
SEEDS = list(dict.fromkeys([*BEGUN_TOKENS, *NAMES, *SHAPES]))


def _ratio(do: Callable[[str], object], text: Callable[[int], str], runs: int) -> tuple[float, float]:
    """How much longer four times the text takes, and the seconds that it took; the best of some runs."""
    best = [10.0**9, 10.0**9]
    for _ in range(runs):
        for index, length in enumerate((SHORT, LONG)):
            given = text(length)
            started = time.process_time()
            do(given)
            best[index] = min(best[index], time.process_time() - started)
    return best[1] / max(best[0], 1e-6), best[1]


@pytest.mark.parametrize("ways", range(6))
def test_texts_made_to_hurt_take_linear_time(ways: int) -> None:
    for seed in SEEDS[ways::6]:
        for before, after in (("", ""), (seed, "]")):
            part = "a" if before else seed

            def text(length: int, before: str = before, part: str = part, after: str = after) -> str:
                return before + part * (length // len(part)) + after

            # What grows with the square has sixteen times as much to do, and takes far longer than this.
            found = [_ratio(REDACTOR.text, text, runs=1)]
            while not _is_linear(found[-1]) and len(found) < 3:
                found.append(_ratio(REDACTOR.text, text, runs=5))
            assert _is_linear(found[-1]), (found, before + part)


def _is_linear(found: tuple[float, float]) -> bool:
    ratio, seconds = found
    return ratio < 9 or seconds < 0.05


def test_many_values_under_a_telling_key_are_linear() -> None:
    for make in (
        lambda n: {"a": [{"token": f"x{i}"} for i in range(n)]},
        lambda n: {f"token{i}": "abcd" for i in range(n)},
        lambda n: {"token": [f"x{i}" for i in range(n)]},
    ):
        seconds = []
        for count in (2_000, 8_000):
            value = make(count)
            runs = []
            for _ in range(3):
                started = time.process_time()
                REDACTOR.redact(value)
                REDACTOR.strike({"message": "abcd" * 100}, REDACTOR.secrets_in(value))
                runs.append(time.process_time() - started)
            seconds.append(min(runs))
        assert seconds[1] < 9 * seconds[0] or seconds[1] < 0.1


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
    started = time.process_time()
    assert redactor.redact({"k": [text + str(i) for i in range(50)]}) == {"k": [MARK] * 50}
    assert time.process_time() - started < 5
    assert caplog.text.count("redact_patterns") == 1
    assert redactor.text("fine, short") == "fine, short"


def test_users_patterns_find_what_pythons_own_engine_finds() -> None:
    own = OwnPatterns([r"(?i)acme-\d+", r"\bx{3}\b"])
    assert own.find("see ACME-12 and xxx, not xxxx") == [(4, 11), (16, 19)]


def test_known_secrets_are_struck_in_linear_time() -> None:
    secrets = [f"key-{number:040}" for number in range(20)]

    def strike(text: str) -> str:
        return strike_known(text, secrets, "[key]")

    for seed in ("key-0000", "%6b", "a"):

        def text(length: int, seed: str = seed) -> str:
            return seed * (length // len(seed))

        assert _is_linear(_ratio(strike, text, runs=3))

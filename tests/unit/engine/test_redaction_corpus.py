"""Redaction by its figures: which secrets of three hundred it misses, and which harmless texts it changes."""

import base64
import random
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from runglass.engine.models.provider_errors import without_secrets
from runglass.redact import MARK, Redactor
from runglass.redact.names import Names
from runglass.redact.quick_look import QuickLook
from tests.examples import all_wanted
from tests.unit.engine.redaction_corpus import CORPUS, Pair
from tests.unit.engine.redaction_held_back import HELD_BACK

REDACTOR = Redactor()
QUICK = QuickLook(Names())
PAIRS = [*CORPUS, *HELD_BACK]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def test_the_corpus_has_300_different_pairs_that_hold_their_secrets() -> None:
    assert len(PAIRS) >= 300
    assert len({_shown(pair.value) for pair in PAIRS}) == len(PAIRS)
    for pair in PAIRS:
        assert pair.secret in _shown(pair.value) or pair.secret in str(pair.value), pair
        assert MARK not in _shown(pair.value)


@pytest.mark.parametrize(
    ("pairs", "most"), [(CORPUS, 0), (HELD_BACK, 2)], ids=["written beside", "held back"]
)
def test_of_a_hundred_texts_that_were_held_back_both_errors_are_two_at_most_and_else_none(
    pairs: list[Pair], most: int
) -> None:
    missed = [pair.value for pair in pairs if pair.secret in _shown(REDACTOR.redact(pair.value))]
    struck = [pair.harmless for pair in pairs if REDACTOR.redact(pair.harmless) != pair.harmless]
    assert len(missed) <= most, missed
    assert len(struck) <= most, struck


def test_the_quick_look_overlooks_nothing() -> None:
    for pair in PAIRS:
        for value in (
            pair.value,
            pair.harmless,
            {"a": [f"\n{_shown(pair.value)}\t\x10"]},
            {"b": 'C:\\n"', "c": pair.value},
        ):
            if REDACTOR.redact(value) != value:
                assert REDACTOR.may_hold_secrets(msgspec.json.encode(value)), value


PROSE = {
    "English": "The offer of 2019 is extended unless somebody gives notice; see https://example.com. ",
    "German": "Die Straße bleibt gesperrt, „wie bisher“ – bis zum 3. Mai. Was kostet 1 kg? 12,50 €. ",
    "Russian": "Договор продлевается до конца года, если сторона не откажется. Дом: 25 %. ",
    "table": "2019-05-06T10:11:12Z,0.1234567890123456,-17.25,1e-05,item 12\n",
    "JSON": '{"n": 12, "name": "item 12", "ok": true, "tags": ["a", "b"]}, ',
}


@pytest.mark.parametrize("language", PROSE)
def test_the_quick_look_at_a_long_text_overlooks_nothing(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prose = PROSE[language] * (1500 // len(PROSE[language]))
    # Each pair in two of the five, but in `make prove`, where it is in all.
    way = list(PROSE).index(language)
    pairs = PAIRS if all_wanted() else [*PAIRS[way::5], *PAIRS[(way + 2) % 5 :: 5]]
    texts = [f"{prose}{_shown(value)} {prose}" for pair in pairs for value in (pair.value, pair.harmless)]
    assert QUICK.is_harmless(prose.encode())
    found = [REDACTOR.text(text) for text in texts]
    # The same without the look.
    monkeypatch.setattr(QuickLook, "is_harmless", lambda look, data: False)
    for text, shown in zip(texts, found, strict=True):
        assert REDACTOR.text(text) == shown


def test_the_quick_look_sees_what_hides_in_digits_and_behind_signs() -> None:
    prose = PROSE["German"] * 20
    for hidden in (b"pwd is 1234".hex(), "\u0430\u200bpi_key=x1", "pass\u00adword=x1", "fm2_a,b,c,d=x"):
        assert not QUICK.is_harmless(f"{prose} {hidden} {prose}".encode())


SURROUNDINGS = [
    "",
    "Grüße, ",
    "Сегодня мы ",
    "価格は ",
    "“quoted” — ",
    "50 % of a&b; ",
    "\u200bx\ufeff ",
    "ﬁne ½ ² ",
    "%41 \\u0041 ",
]


@pytest.mark.parametrize("number", range(len(SURROUNDINGS)))
def test_what_is_no_secret_stays_byte_for_byte(number: int) -> None:
    before, after = SURROUNDINGS[number], SURROUNDINGS[number - 3]
    for pair in PAIRS:
        text = f"{before}\n{_shown(pair.value)}\n{after}"
        shown, place = REDACTOR.text(text), 0
        for part in shown.split(MARK):
            place = text.index(part, place) + len(part)
        assert shown.startswith(before)
        assert shown.endswith(after)


def test_a_picture_is_no_secret_and_what_is_beside_it_still_is() -> None:
    picture = base64.b64encode(random.Random(1).randbytes(30_000)).decode()
    for text in (f"data:image/png;base64,{picture}", f"{picture} and more", picture):
        assert REDACTOR.text(text) == text
    assert REDACTOR.text(f"{picture} password=x1 {picture}") == f"{picture} password={MARK} {picture}"
    assert REDACTOR.text(f"password={picture}") == f"password={MARK}"


@pytest.mark.parametrize("key", ["sk-" + "made-up-4711-Key/+x", "0123456789abcdef0123456789abcdef"])
@pytest.mark.parametrize("before", ["", "Bearer ", "x:", "user1:"])
def test_a_providers_error_tells_its_key_in_no_form(key: str, before: str) -> None:
    plain = before + key
    forms = [
        plain, plain[::-1], quote(plain, safe=""), plain.encode().hex(), plain.encode().hex().upper(),
        base64.b64encode(plain.encode()).decode(), base64.urlsafe_b64encode(plain.encode()).decode(),
        base64.b64encode(key[::-1].encode()).decode(), "".join(f"%{byte:02x}" for byte in plain.encode()),
        "".join(f"\\u{ord(letter):04x}" for letter in plain), key.upper(), "\u200b".join(key),
        plain.encode().hex(" "), base64.b32encode(key.encode()).decode(),
    ]  # fmt: skip
    for form in forms:
        said = without_secrets(f"bad key <{form}> given", [key])
        assert said.startswith("bad key <")
        assert said.endswith("> given")
        assert "[key]" in said
        left = said.removeprefix("bad key <").removesuffix("> given").replace("[key]", "")
        # Base64 shares its first and last letters with what is around the key.
        assert len(left) <= 4 + len(form) - len(form) * len(key) // len(plain)

"""Finds secrets in values and texts and puts a mark in their place.

Two rules: what stands under a telling key goes, whatever it is, and so does every part of a text that has the
shape of a secret. Both rather take too much than too little. Knows no capture modes and no snapshots.

The patterns here need time linear in the text, also for texts made to hurt: repeats are possessive (`++`),
and where one may still fail after a long run, nothing inside of that run can begin another.
"""

import functools
import re
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

DEFAULT_KEYS = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "jwt", "authorization", "cookie",
    "credential", "session_id", "api_key", "access_key", "secret_key", "secret_access_key", "private_key",
    "signing_key", "encryption_key", "auth_key", "account_key", "shared_access_key",
    "card_number", "cvv", "cvc", "iban", "ssn",
)  # fmt: skip
"""How a telling key ends, whatever its case and separators: `token` also speaks of `accessToken`.

Digits may follow, and words that leave it what it is: `password1`, `db_password_prod`, `tokenValue`.
"""
_ABOUT = (
    "at", "budget", "cost", "count", "counts", "enabled", "endpoint", "expires", "expiry", "field", "hash",
    "hashed", "id", "ids", "in", "length", "limit", "limits", "max", "min", "name", "per", "policy", "price",
    "rate", "required", "size", "strength", "total", "ttl", "type", "uri", "url", "usage", "used",
)  # fmt: skip
"""Words behind a telling key that make it speak of something about the secret: `token_count`."""
_NAMES, _VALUES = ("name", "key", "field", "header", "Name", "Key"), ("value", "Value")
MARK = "[redacted]"


class _Shape(NamedTuple):
    """A pattern, and texts of which one is in every text that has it. What its group `keep` holds stays."""

    pattern: str
    signs: tuple[str, ...]


_SHAPES = (
    _Shape(
        r"-----BEGIN[A-Z0-9 ]{1,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[^-]*+(?:-(?!----)[^-]*+)*+-----END[A-Z0-9 ]{1,40}PRIVATE KEY(?: BLOCK)?-----"
        r"|[A-Za-z0-9+/=\s\\]*+)",
        ("PRIVATE KEY",),
    ),
    # What stands before the host of a URL: user and password.
    _Shape(r"(?<=://)[^\s/?#\"'<>\\]+(?=@)", ("://",)),
    _Shape(
        r"(?P<keep>(?i:(?<![a-z0-9])(?:bearer|basic)\s{1,8}+))"
        r"(?:(?=[A-Za-z._~+/-]*+[0-9=])[\w.~+/=-]{6,}+|[\w.~+/=-]{20,}+)",
        ("earer", "EARER", "asic", "ASIC"),
    ),
    # A JSON Web Token.
    _Shape(r"(?<![\w-])eyJ[\w-]{5,}+\.[\w-]{5,}+(?:\.[\w-]*+)?", ("eyJ",)),
    _Shape(r"(?<![A-Za-z0-9])[srp]k[-_][\w-]{12,}+", ("k-", "k_")),
    _Shape(r"(?<![A-Za-z0-9_])nk_[\w-]{6,}+", ("nk_",)),
    _Shape(r"(?<![A-Za-z0-9])(?:gh[opusr]_|github_pat_|hf_|npm_|glpat-)[\w-]{16,}+", ("_", "glpat-")),
    _Shape(r"(?<![A-Za-z0-9])xox[a-z]-[\w-]{8,}+", ("xox",)),
    _Shape(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}", ("AKIA", "ASIA")),
    _Shape(r"(?<![A-Za-z0-9])AIza[\w-]{30,}+", ("AIza",)),
    _Shape(r"(?<![\w-])ya29\.[\w-]{8,}+", ("ya29.",)),
    _Shape(r"(?<![\w-])SG\.[\w-]{16,}+(?:\.[\w-]++)?", ("SG.",)),
    _Shape(r"(?<![A-Za-z0-9])whsec_[\w+/=-]{8,}+", ("whsec_",)),
    # A signature or key in the query of a URL.
    _Shape(
        r"(?P<keep>[?&](?:[sS]ig(?:nature)?|[kK]ey|[aA]uth)=)[^\s&#\"'<>\\]++",
        ("ig=", "ignature=", "ey=", "uth="),
    ),
    # An e-mail address.
    _Shape(r"(?<![\w.%+-])[\w.%+-]++@(?:[\w-]++\.)+[^\W\d_]{2,24}+", ("@",)),
)
_DIGITS = re.compile(r"(?<!\d)(?<!\d\.)\d(?:[ -]?\d){12,}+")
_DIGITS_IN_JSON = re.compile(rb"\d(?:[ -]?\d){12}")
_SHORTEST = 4
"""Characters of a secret that is struck from an error: shorter ones are in any text."""
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


class Redactor:
    """Redacts by the rules that are built in and by those of its user.

    Keys are matched like `DEFAULT_KEYS`; patterns are regular expressions of Python, and their speed is their
    author's business. Raises ValueError for one that cannot be used.
    """

    def __init__(
        self, *, extra_keys: Iterable[str] = (), extra_patterns: Iterable[str] = (), mark: str = MARK
    ) -> None:
        self._mark = mark
        keys = [_words(key) for key in (*DEFAULT_KEYS, *extra_keys)]
        if [] in keys:
            raise ValueError("a key to redact must have a letter or a digit")
        self._key_end = re.compile(f"(?:{'|'.join(map(''.join, keys))})$")
        self._key_signs = tuple({max(words, key=len) for words in keys})
        self._pairs = _pairs(keys)
        self._shapes = [(re.compile(shape.pattern), shape.signs) for shape in _SHAPES]
        self._extra = [_compiled(pattern) for pattern in extra_patterns]
        signs = {*self._key_signs, *(sign.lower() for shape in _SHAPES for sign in shape.signs)}
        self._signs = tuple(sign.encode() for sign in signs)
        self._has_signs = not self._extra and "".join(signs).isascii()
        self._cached_key = functools.lru_cache(maxsize=4096)(self._key)

    def may_hold_secrets(self, encoded: bytes) -> bool:
        """False only where `redact` would change nothing; quick. Takes JSON as msgspec writes it."""
        if not self._has_signs:
            return True
        low = encoded.lower()
        return any(sign in low for sign in self._signs) or _DIGITS_IN_JSON.search(low) is not None

    def redact(self, value: Any) -> Any:
        """A copy of a JSON value without its secrets."""
        holder = [value]
        # No recursion: values are nested as deeply as their makers like.
        pending: list[tuple[Any, Any, Any]] = [(holder, 0, value)]
        while pending:
            target, key, value = pending.pop()
            if isinstance(value, str):
                target[key] = self.text(value)
            elif isinstance(value, dict):
                copy: dict[str, Any] = {}
                target[key] = copy
                named = self._named_value(value)
                for name, inner in value.items():
                    shown, tells = self._shown_key(name)
                    tells = tells or name == named
                    if shown in copy:
                        shown = f"{shown} {len(copy) + 1}"
                    copy[shown] = self._mark
                    if inner is None or isinstance(inner, bool) or not tells:
                        pending.append((copy, shown, inner))
            elif isinstance(value, list | tuple):
                target[key] = items = [None] * len(value)
                for index, inner in enumerate(value):
                    hides = self._is_pair(inner)
                    pending.append((items, index, [inner[0], self._mark] if hides else inner))
            elif type(value) is int and 10**12 <= value < 10**19:
                target[key] = self._mark if self._without_cards(str(value)) == self._mark else value
            else:
                target[key] = value
        return holder[0]

    def text(self, text: str) -> str:
        """The text without its secrets. JSON in it is text like any other."""
        if len(text) >= 6:
            for pattern, signs in self._shapes:
                if any(sign in text for sign in signs):
                    text = pattern.sub(self._marked, text)
            if len(text) >= 13:
                text = _DIGITS.sub(lambda match: self._without_cards(match[0]), text)
            if ":" in text or "=" in text:
                low = text.lower()
                if any(sign in low for sign in self._key_signs):
                    text = self._pairs.sub(self._marked, text)
        for pattern in self._extra:
            text = pattern.sub(self._marked, text)
        return text

    def secrets_in(self, value: Any) -> set[str]:
        """The texts and numbers of a JSON value that stand under a telling key, but for very short ones."""
        found: set[str] = set()
        pending: list[tuple[Any, bool]] = [(value, False)]
        while pending:
            value, hidden = pending.pop()
            if isinstance(value, dict):
                named = self._named_value(value)
                pending += [
                    (inner, hidden or name == named or self._shown_key(name)[1])
                    for name, inner in value.items()
                ]
            elif isinstance(value, list | tuple):
                pending += [(inner[1], True) if self._is_pair(inner) else (inner, hidden) for inner in value]
            elif hidden and isinstance(value, str | int | float) and len(str(value)) >= _SHORTEST:
                found.add(str(value))
        return found

    def strike(self, value: Any, secrets: Iterable[str]) -> Any:
        """A copy of a JSON value in whose texts the secrets are marked, however they are quoted there."""
        forms = {form for secret in secrets for form in _quoted(secret)}
        if not forms:
            return value
        # The longest first: one may be the beginning of another.
        pattern = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))
        return _with_texts(value, lambda text: pattern.sub(self._mark, text))

    def _shown_key(self, name: str) -> tuple[str, bool]:
        return self._cached_key(name) if len(name) <= 100 else self._key(name)

    def _named_value(self, value: dict[str, Any]) -> str | None:
        """The field with the value of `{"name": "password", "value": …}`."""
        field = next((name for name in _VALUES if name in value), None)
        if field is None:
            return None
        names = (value.get(name) for name in _NAMES)
        return field if any(isinstance(name, str) and self._shown_key(name)[1] for name in names) else None

    def _is_pair(self, value: Any) -> bool:
        """Whether it is like `["X-Api-Key", …]`."""
        if not isinstance(value, list | tuple) or len(value) != 2 or not isinstance(value[0], str):
            return False
        return not isinstance(value[1], bool | None) and self._shown_key(value[0])[1]

    def _marked(self, match: re.Match[str]) -> str:
        if match.start() == match.end():
            return ""
        return (match["keep"] if "keep" in match.re.groupindex else "") + self._mark

    def _key(self, key: str) -> tuple[str, bool]:
        """The key as it is shown, and whether it tells of a secret."""
        words = _words(key[-100:])
        begun = list(accumulate(words))
        return self.text(key), any(map(self._tells, begun, [*words[1:], ""]))

    def _tells(self, key: str, after: str) -> bool:
        plain = key.rstrip("0123456789")
        # `max_tokens` ends like a plural, and it holds no secret.
        singular = plain if plain.endswith("tokens") else plain.removesuffix("s")
        ends = self._key_end.search(plain) or self._key_end.search(singular)
        return ends is not None and after not in _ABOUT

    def _without_cards(self, run: str) -> str:
        """A run of digits, grouped by spaces or dashes, without the groups that make up card numbers."""
        parts = re.split(r"([ -])", run)
        is_hidden = _in_cards(parts[::2])
        shown: list[str] = []
        for index, hidden in enumerate(is_hidden):
            if not hidden or index == 0 or not is_hidden[index - 1]:
                shown += [*parts[2 * index - 1 : 2 * index], self._mark if hidden else parts[2 * index]]
        return "".join(shown)


def _in_cards(groups: list[str]) -> list[bool]:
    """Which groups of digits belong to 13 to 19 digits that are a card number by its first and last digit."""
    ends = list(accumulate(map(len, groups)))
    digits = [int(digit) for digit in "".join(groups)]
    # Running sums of the check, with the even or the odd digits doubled: any window then costs the same.
    sums = [
        [0, *accumulate(_DOUBLED[digit] if i % 2 == odd else digit for i, digit in enumerate(digits))]
        for odd in (0, 1)
    ]
    found = [False] * len(groups)
    for first, group in enumerate(groups):
        start = ends[first] - len(group)
        if not 2 <= digits[start] <= 6:
            continue
        for last in range(first, min(first + 19, len(groups))):
            end = ends[last]
            if 13 <= end - start <= 19 and (sums[end % 2][end] - sums[end % 2][start]) % 10 == 0:
                found[first : last + 1] = [True] * (last + 1 - first)
    return found


def _words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word.casefold() for word in re.split(r"[\W_]+", apart) if word]


def _key_pattern(words: list[str]) -> str:
    """A key as it stands in a text; the first letter is spelled out since that lets `re` skip ahead."""
    first, rest = words[0][0], [words[0][1:], *words[1:]]
    plural = "" if words[-1].endswith("token") else "s?"
    return f"[{first}{first.upper()}](?i:{'[ _.-]?'.join(map(re.escape, rest))}{plural})"


_SUFFIX = (
    r"(?:\d{1,4}|(?:[_-](?=[A-Za-z0-9])|(?=[A-Z]))"
    rf"(?!(?i:{'|'.join(_ABOUT)})(?![a-z]))[A-Za-z0-9]{{1,20}}){{0,2}}+"
)
"""What may follow a telling key in a text."""


def _pairs(keys: list[list[str]]) -> re.Pattern[str]:
    """`password=hunter2`, `"apiKey": "…"`, `Authorization: Basic …`: key, what is between, and its value."""
    names = "|".join(_key_pattern(words) for words in sorted(keys, key=lambda words: -len("".join(words))))
    return re.compile(
        rf"""(?P<keep>(?:{names}){_SUFFIX}\\{{0,8}}["']?\s{{0,4}}+(?:=|(?P<colon>:))\s{{0,4}}+"""
        r"""(?:(?P<escaped>\\{1,8}["'])|(?P<double>")|(?P<single>'))?)"""
        r"""(?(escaped)[^"'\\]++|(?(double)(?:[^"\\\n]|\\.)++|(?(single)(?:[^'\\\n]|\\.)++|"""
        r"""(?i:(?:basic|bearer|digest|token)\s{1,4}+)?+[^\s,;&"'{}\[\]()<>\\]++(?:;\s?[^\s,;&"'=]++=[^\s,;&"']++)*+"""
        # A password may be of several words: all that stands on the line.
        r"""(?(colon)(?:[ \t]++[^\s,;&"'{}\[\]()<>\\]++)*+|))))"""
    )


def _quoted(secret: str) -> set[str]:
    return {secret, repr(secret)[1:-1], msgspec.json.encode(secret).decode()[1:-1]}


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _with_texts(inner, change) for key, inner in value.items()}
    return [_with_texts(inner, change) for inner in value] if isinstance(value, list) else value


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    if compiled.fullmatch(""):
        raise ValueError(f"pattern {pattern!r} matches the empty text, so it would be found everywhere")
    return compiled

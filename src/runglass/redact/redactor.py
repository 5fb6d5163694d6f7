"""Redacts JSON values and texts by the rules that are built in and by those of its user.

Two rules: a value under a telling key goes, and so does every part of a text that has the shape of a
secret, also where it is spelled in look-alike letters, escaped, in Base64 or hexadecimal.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from runglass.redact.known import strike_known, with_texts
from runglass.redact.names import Names, hides
from runglass.redact.own_patterns import OwnPatterns
from runglass.redact.patterns import find_numbers, find_tokens, is_card
from runglass.redact.quick_look import QuickLook
from runglass.redact.rules import PATTERNS
from runglass.redact.views import (
    Span,
    decoded_runs,
    lowered,
    replaced,
    views_around,
    without_blobs,
)

MARK = "[redacted]"
_NAMES, _VALUES = ("name", "key", "field", "header", "Name", "Key"), ("value", "Value")
_SHORTEST = 4
"""Characters of a secret that is struck from an error: shorter ones are in any text."""
_MOST_STRUCK = 1000
"""Secrets that are looked for in an error."""
_DEEPEST = 3
"""How often a text is decoded: Base64 in Base64, or escapes in escapes."""
_LONG = 1000
"""Characters from which on it pays to look first whether a text is harmless."""
_REMEMBERED = 64
"""Characters of a text that is looked through once for each value it is in: keys, roles, states."""
_HIDDEN: Any = object()
"""Stands for a secret until its mark is put in its place."""


class Rules(msgspec.Struct, frozen=True):
    """The rules of a redactor's user."""

    extra_keys: tuple[str, ...] = ()
    extra_patterns: tuple[str, ...] = ()


class Redactor:
    """Redacts by the rules that are built in and by those of its user.

    Keys are matched like the strong words of `rules.toml`; patterns are regular expressions of Python whose
    time is bounded by `OwnPatterns`. Raises ValueError for one that cannot be used. All else takes time
    linear in the value.
    """

    def __init__(self, *, extra_keys: Iterable[str] = (), extra_patterns: Iterable[str] = ()) -> None:
        self.rules = Rules(tuple(extra_keys), tuple(extra_patterns))
        self._names = Names(self.rules.extra_keys)
        self.own = OwnPatterns(self.rules.extra_patterns)
        self._quick = QuickLook(self._names)

    def may_hold_secrets(self, encoded: bytes) -> bool:
        """False only where `redact` would change nothing; quick. Takes JSON as msgspec writes it."""
        return bool(self.own) or not self._quick.is_harmless(_unescaped(encoded.decode()).encode())

    def redact(self, value: Any) -> Any:
        """A copy of a JSON value without its secrets."""
        holder = [value]
        texts: dict[str, str] = {}
        names: dict[str, tuple[str, str | None]] = {}
        kind_of, has_own = self._names.kind, bool(self.own)
        # No recursion: values are nested as deeply as their makers like.
        pending: list[tuple[Any, Any, Any]] = [(holder, 0, value)]
        while pending:
            target, key, value = pending.pop()
            kind = type(value)
            if kind is dict:
                copy: dict[str, Any] = {}
                target[key] = copy
                named = None
                if len(value) > 1 and ("value" in value or "Value" in value):
                    named = self._named_value(value)
                for name, inner in value.items():
                    known = names.get(name)
                    if known is None:
                        # Digits at the end do not change what a name says.
                        tells = kind_of(name[-100:].rstrip("0123456789"))
                        is_short = not has_own and _is_harmless(name)
                        known = names[name] = (name if is_short else self.text(name)), tells
                    shown, tells = known
                    if shown in copy:
                        shown = f"{shown} {len(copy) + 1}"
                    if (tells is not None and hides(tells, inner)) or name == named:
                        copy[shown] = MARK
                    elif type(inner) is str:
                        copy[shown] = texts.get(inner) or self._text_once(inner, texts)
                    else:
                        copy[shown] = inner
                        pending.append((copy, shown, inner))
            elif kind is list or kind is tuple:
                target[key] = items = list(value)
                after_option = False
                for index, inner in enumerate(value):
                    if type(inner) is str:
                        items[index] = MARK if after_option else self._text_once(inner, texts)
                        after_option = inner[:1] == "-" and self._names.kind(inner[-100:]) is not None
                        continue
                    after_option = False
                    if type(inner) is list or type(inner) is tuple:
                        inner = [inner[0], _HIDDEN] if self._is_pair(inner) else inner
                    pending.append((items, index, inner))
            elif kind is str:
                target[key] = self._text_once(value, texts)
            elif kind is int:
                target[key] = MARK if is_card(value) else value
            else:
                target[key] = MARK if value is _HIDDEN else value
        return holder[0]

    def _text_once(self, text: str, texts: dict[str, str]) -> str:
        """`text(text)`; short ones, which come often, are looked through once."""
        if len(text) > _REMEMBERED:
            return self.text(text)
        shown = texts.get(text)
        if shown is None:
            shown = texts[text] = self.text(text)
        return shown

    def text(self, text: str) -> str:
        """The text without its secrets; all else stays as it is. JSON in it is text like any other."""
        spans = [] if _is_harmless(text) else list(self._spans(text, 0))
        if self.own:
            spans += self.own.find(text)
        return replaced(text, spans, MARK) if spans else text

    def secrets_in(self, value: Any) -> set[str]:
        """The texts and numbers of a JSON value that stand under a telling key, but for very short ones."""
        found: set[str] = set()
        pending: list[tuple[Any, bool]] = [(value, False)]
        # More than are looked for need not be known.
        while pending and len(found) <= _MOST_STRUCK:
            value, hidden = pending.pop()
            if isinstance(value, dict):
                named = self._named_value(value)
                for name, inner in value.items():
                    tells = hidden or name == named
                    tells = tells or self._names.tells(name[-100:].rstrip("0123456789"), inner)
                    if isinstance(inner, dict | list | tuple):
                        pending.append((inner, tells))
                    elif tells and _may_be_struck(inner):
                        found.add(str(inner))
                        if len(found) > _MOST_STRUCK:
                            break
            elif isinstance(value, list | tuple):
                pending += [(inner[1], True) if self._is_pair(inner) else (inner, hidden) for inner in value]
            elif hidden and _may_be_struck(value):
                found.add(str(value))
        return found

    def strike(self, value: Any, secrets: Iterable[str]) -> Any:
        """A copy of a JSON value in whose texts the secrets are marked, however they are written there.

        For more than a thousand secrets the texts go whole: to look for each of them would take too long.
        """
        lengths = [0]
        with_texts(value, lambda text: lengths.append(len(text)))
        longest = max(lengths)
        # No form of a secret is shorter than it is: a document under a telling key need not be looked for.
        known = {secret for secret in secrets if len(secret) <= longest}
        if len(known) > _MOST_STRUCK:
            return with_texts(value, lambda text: MARK if len(text) >= _SHORTEST else text)
        return strike_known(value, known, MARK) if known else value

    def _spans(self, text: str, depth: int) -> Iterator[Span]:
        if PATTERNS["plain"].fullmatch(text):
            return
        if len(text) >= _LONG and self._quick.is_harmless(text.encode("utf-8", "surrogatepass")):
            return
        if depth < _DEEPEST:
            for start, end, decoded in decoded_runs(text):
                if any(True for _ in self._spans(decoded, depth + 1)):
                    yield start, end
        short = without_blobs(text)
        if short is not None:
            yield from map(short.origin, self._found(short.text, depth))
        else:
            yield from self._found(text, depth)

    def _found(self, text: str, depth: int) -> Iterator[Span]:
        low = lowered(text)
        yield from find_tokens(text, low)
        if PATTERNS["beside"].search(text):
            yield from self._names.find(text, low)
        yield from find_numbers(text, low)
        if depth < _DEEPEST:
            for begin, view in views_around(text):
                for start, end in map(view.origin, self._spans(view.text, depth + 1)):
                    yield begin + start, begin + end

    def _named_value(self, value: dict[str, Any]) -> str | None:
        """The field with the value of `{"name": "password", "value": …}`."""
        field = next((name for name in _VALUES if name in value), None)
        if field is None:
            return None
        names = (value.get(name) for name in _NAMES)
        tells = any(isinstance(name, str) and self._names.tells(name[-100:], value[field]) for name in names)
        return field if tells else None

    def _is_pair(self, value: Any) -> bool:
        """Whether it is like `["X-Api-Key", …]`."""
        if not isinstance(value, list | tuple) or len(value) != 2 or not isinstance(value[0], str):
            return False
        return self._names.tells(value[0][-100:], value[1])


def _is_harmless(text: str) -> bool:
    """Whether it is too short to be told for a secret."""
    return len(text) < 6 or (len(text) <= 11 and text.isalnum())


def _may_be_struck(value: Any) -> bool:
    return (
        isinstance(value, str | int | float) and not isinstance(value, bool) and len(str(value)) >= _SHORTEST
    )


def _unescaped(encoded: str) -> str:
    """JSON in which texts stand plain between their quotes, as they are without JSON's escapes."""
    if "\\" not in encoded:
        return encoded
    parts = encoded.split("\\\\")
    for escape, plain in (
        ('\\"', '"'),
        ("\\n", "\n"),
        ("\\t", "\t"),
        ("\\r", "\r"),
        ("\\b", " "),
        ("\\f", " "),
    ):
        parts = [part.replace(escape, plain) for part in parts]
    return "\\".join(PATTERNS["control"].sub("\n", part) for part in parts)

"""Names that tell of a secret, and the secrets that stand beside them in a text: `password=…`, `PIN is …`.

Strong names hide any value, weak ones a value that looks secret. Names are looked for first, since there are
few; the text behind them is matched from there, and no part is looked at twice, so that time is linear in
the text.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate

from runglass.redact.rules import COMMANDS, PATTERNS, WEAK, WORDS
from runglass.redact.views import Span, plain_word, positions

_ABOUT = frozenset(WORDS["about"])
_LONGEST_COMMAND = 2000


class Names:
    """Judges names of fields, and finds what stands beside them in texts; `extra` are further strong ones.

    Raises ValueError for one without letters.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        keys = [words(key) for key in (*WORDS["strong"], *extra)]
        if [] in keys:
            raise ValueError("a key to redact must have a letter or a digit")
        ends = "|".join(" ?".join(map(re.escape, key)) for key in keys)
        measured = "|".join(WORDS["of_models"])
        self._end = re.compile(rf"(?:{ends}|(?P<measured>\b(?:{measured}) token))$")
        self.kind = functools.lru_cache(maxsize=4096)(self._kind)
        # By the longest word of each, which is looked for before anything else.
        self._strong: dict[str, list[re.Pattern[str]]] = {}
        for key in sorted(keys, key=lambda key: -len("".join(key))):
            plural = "" if key[-1].endswith("token") or not key[-1].isascii() else "s?"
            pattern = re.compile("[ _.-]?".join(map(re.escape, key)) + plural)
            self._strong.setdefault(max(key, key=len), []).append(pattern)
        self._anywhere = [
            (max(key, key=len), re.compile("[\\W_]*+".join(map(re.escape, key)))) for key in keys
        ]
        self.signs = {sign for sign, _ in self._anywhere}
        self._ascii = {sign: patterns for sign, patterns in self._strong.items() if sign.isascii()}

    def tells(self, name: str, value: object) -> bool:
        """Whether the value under this name is a secret; `name` is cut to its end by the caller."""
        kind = self.kind(name)
        return kind is not None and hides(kind, value)

    def _kind(self, name: str) -> str | None:
        """`strong`, `measured`, a name of `WEAK`, or None."""
        # Keys of scripts that have no Latin look-alikes are found as they are written.
        for spelling in {name, plain_word(name)}:
            parts = words(spelling)
            begun = list(accumulate(parts, "{} {}".format))
            if told := {*map(self._strength, begun, [*parts[1:], ""])} - {None}:
                return "strong" if "strong" in told else "measured"
            while len(parts) > 1 and (parts[-1] in WORDS["weak_suffixes"] or parts[-1].isdigit()):
                parts.pop()
            last = parts[-1].rstrip("0123456789") if parts else ""
            for weak in WEAK:
                if last == weak or (
                    last.endswith(weak) and last.removesuffix(weak) in WORDS["weak_prefixes"]
                ):
                    return weak
        return None

    def _strength(self, key: str, after: str) -> str | None:
        plain = key.rstrip(" 0123456789")
        # `max_tokens` ends like a plural, and it holds no secret.
        singular = plain if plain.endswith("tokens") else plain.removesuffix("s")
        ends = self._end.search(plain) or self._end.search(singular)
        return None if ends is None or after in _ABOUT else ends.lastgroup or "strong"

    def may_be_named(self, folded: str) -> bool:
        """Whether a strong name is in a casefolded text."""
        return any(sign in folded and each.search(folded) for sign, each in self._anywhere)

    def find(self, text: str, low: str) -> Iterator[Span]:
        """Spans of the values; names and quotes stay."""
        for sign, patterns in (self._ascii if low.isascii() else self._strong).items():
            if sign in low:
                for pattern in patterns:
                    yield from _assigned(pattern, text, low)
        has_signs = ":" in text or "=" in text or "\uff1a" in text
        if has_signs:
            yield from _weak(text, low)
        yield from _codes(low)
        if "value" in low and has_signs:
            for match in PATTERNS["named"].finditer(text):
                if self._fits(match["name"], match):
                    yield _value(match)
        if "</" in text or "<![CDATA[" in text:
            for match in PATTERNS["element"].finditer(text):
                names = [match["name"], *PATTERNS["attribute"].findall(match["more"] or "")]
                if any(self._fits(name, match) for name in names):
                    yield _value(match)
        yield from self.in_commands(text, low)

    def in_commands(self, text: str, low: str) -> Iterator[Span]:
        """Spans of secrets in command lines, and in files that tools read."""
        if "-" in text:
            for match in PATTERNS["option"].finditer(text):
                if self._fits(match["name"], match):
                    yield _value(match)
            if " -" in text or " pass:" in text:
                for match in PATTERNS["command"].finditer(text):
                    yield from _short_option(match)
        if "password" in low:
            yield from (match.span("said") for match in PATTERNS["netrc"].finditer(text))
        if ":543" in text or ":6543:" in text or ":*:" in text:
            yield from (match.span("said") for match in PATTERNS["pgpass"].finditer(text))

    def _fits(self, name: str, match: re.Match[str]) -> bool:
        start, end = _value(match)
        return self.tells(name, match.string[start:end])


def hides(kind: str, value: object) -> bool:
    """Whether a value under a name of this kind is a secret."""
    if value is None or type(value) in (bool, float) or (kind == "measured" and type(value) is int):
        return False
    return kind in ("strong", "measured") or _fits(kind, value)


def _fits(kind: str, value: object) -> bool:
    """Whether a value under a weak name looks like a secret; of a pair of user and password each part may."""
    if isinstance(value, str):
        return WEAK[kind].fullmatch(value.strip()) is not None
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(isinstance(part, str) and part for part in value) and kind == "auth"
    return type(value) is int and kind != "pass" and _fits(kind, str(value))


def words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word.casefold() for word in re.split(r"[\W_]+", apart) if word]


def _assigned(pattern: re.Pattern[str], text: str, low: str) -> Iterator[Span]:
    done = 0
    for name in pattern.finditer(low):
        if name.start() < done:
            continue
        match = PATTERNS["assigned"].match(text, name.end())
        if match is None:
            said = PATTERNS["said"].match(text, name.end())
            if said and any(map(str.isdigit, said["said"])) and not PATTERNS["unit"].match(said["said"]):
                start, end = said.span("said")
                yield start, start + len(text[start:end].rstrip(".,;:)?"))
            continue
        done = match.end()
        start, end = _value(match)
        if match.lastgroup == "plain" and _says_nothing(text, name.span(), start, end):
            done = name.end()
            continue
        yield start, end


def _found(words: Iterable[str], low: str) -> list[str]:
    return [word for word in words if word in low]


def weak_names(text: str, low: str) -> Iterator[tuple[str, int]]:
    """Weak names with where they end: `pin`, `PIN-Code`, `db_pass`, `userPass`, not `spin` and `passed`."""
    for name in _found(WEAK, low):
        for start in positions(low, name):
            match = PATTERNS["weak_end"].match(low, start + len(name))
            if match and (
                PATTERNS["weak_before"].search(low, max(0, start - 6), start)
                or (text[start].isupper() and text[start - 1].islower())
            ):
                yield name, match.end()


def _weak(text: str, low: str) -> Iterator[Span]:
    done = 0
    for name, after in weak_names(text, low):
        match = PATTERNS["weak_value"].match(text, after) if after > done else None
        if match is None:
            continue
        start, end = _value(match)
        value = text[start:end].rstrip(" .(-/") if match.lastgroup == "number" else text[start:end]
        if _fits(name, value):
            end = start + len(value)
            if match.lastgroup == "plain":
                rest = PATTERNS["rest"].match(text, end)
                end = rest.end() if rest else end
            done = end
            yield start, end
        elif match.lastgroup == "number":
            first = PATTERNS["rest"].match(text, start, end)
            if first and _fits(name, first[0]):
                yield first.span()


def _codes(low: str) -> Iterator[Span]:
    """`Your PIN is 5930`, `482913 is your login code`"""
    for name in _found(WORDS["codes"], low):
        for start in positions(low, name):
            match = PATTERNS["code_said"].match(low, start + len(name))
            if match and not low[start - 1 : start].isalnum():
                yield match.span(1)
    for said in _found(WORDS["is_yours"], low):
        for start in positions(low, said):
            before = PATTERNS["code_before"].search(low, max(0, start - 9), start)
            if before and PATTERNS["code_after"].match(low, start + len(said)):
                yield before.span(1)


def _says_nothing(text: str, name: Span, start: int, end: int) -> bool:
    """Whether what looks like an unquoted value is code, or words about secrets."""
    value = text[start:end]
    if PATTERNS["no_value"].match(value) or PATTERNS["complaint"].search(text, max(0, name[0] - 14), name[0]):
        return True
    # `self.token = token` and `password: password of the user`
    if value.partition(" ")[0].lower() == text[name[0] : name[1]].lower():
        return True
    return text[end : end + 1] in ("(", "[") and PATTERNS["reference"].match(value) is not None


def _short_option(command: re.Match[str]) -> Iterator[Span]:
    """Spans of what stands behind an option like `-p`."""
    name, start = command["name"], command.start("rest")
    pattern = COMMANDS.get(name) or next(COMMANDS[each] for each in COMMANDS if name.startswith(each))
    for match in pattern.finditer(command.string, start, min(command.end(), start + _LONGEST_COMMAND)):
        start, end = match.span("said")
        quote = match["said"][:1]
        if quote in ("'", '"'):
            # A quoted secret may have blanks in it.
            closing = command.string.find(quote, start + 1, command.end())
            yield start + 1, closing if closing > 0 else end
        elif not match["said"].startswith("-"):
            yield start, end


def _value(match: re.Match[str]) -> Span:
    assert match.lastgroup is not None
    return match.span(match.lastgroup)

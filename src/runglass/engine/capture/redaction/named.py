"""Secrets that stand in a text beside their name: `password=…`, `<token>…</token>`, `PIN is …`.

Names are looked for first, since there are few; the text behind them is matched from there, and no part is
looked at twice, so that time is linear in the text.
"""

import re
from collections.abc import Iterator

from runglass.engine.capture.redaction.keys import ABOUT, WEAK, WEAK_PREFIXES, WEAK_SUFFIXES, Keys, fits
from runglass.engine.capture.redaction.views import Span

_SUFFIX = (
    r"(?:\d{1,4}|(?:[_-](?=[A-Za-z0-9])|(?=[A-Z]))"
    rf"(?!(?i:{'|'.join(ABOUT)})(?![a-z]))[A-Za-z0-9]{{1,20}}){{0,2}}+"
)
"""What may follow a telling key in a text."""
# A type may stand before the sign: `api_key: str = "…"`
_SIGN = (
    r"(?:(?::[ ]?(?:str|string|bytes|SecretStr|String|Optional\[str\])(?: \| None)?[ ]?)?=[=>]?"
    r"|:=|(?P<colon>[:\uff1a]))"
)
_QUOTED = (
    r'"""(?P<long>(?:[^"]++|"(?!""))++)'
    r"|'''(?P<long_single>(?:[^']++|'(?!''))++)"
    # JSON in JSON: the value ends at a quote with as many backslashes before it as its first one.
    r"""|(?P<mark>\\{1,8}["'])(?P<escaped>(?:[^"'\\\n]++|(?!(?P=mark))(?:\\++["']?|["']))++)"""
    r'|"(?P<double>(?:[^"\\\n]++|\\.)++)'
    r"|'(?P<single>(?:[^'\\\n]++|\\.)++)"
    r"|`(?P<back>[^`\n]++)"
)
_BETWEEN = rf"""\\{{0,8}}["'`]?(?:[ ]?\])?\s{{0,4}}+{_SIGN}\s{{0,4}}+"""
_ASSIGNED = re.compile(
    rf"{_SUFFIX}{_BETWEEN}(?:[brfuBRFU]{{1,2}}(?=[\"']))?(?:{_QUOTED}"
    # YAML: the lines below that are indented
    r"|[|>][-+0-9]{0,3}[ \t]*+\n(?P<block>(?:[ \t]++[^\n]*+(?:\n|\Z))++)"
    r"|(?P<digest>(?i:digest|oauth|hawk|signature|aws4-hmac-sha256)[ ][^\n]++)"
    r"|(?:(?i:basic|bearer|token|apikey|negotiate)\s{1,4}+)?+"
    r"(?P<plain>[^\s,;&\"'{}\[\]()<>\\]++(?:;\s?[^\s,;&\"'=]++=[^\s,;&\"']++)*+"
    # A password may be of several words: all that stands on the line.
    r"(?(colon)(?:[ \t]++[^\s,;&\"'{}\[\]()<>\\]++){0,30}+|)))"
)
_REFERENCE = re.compile(r"[A-Za-z_$][\w.$]*+\Z")
_NO_VALUE = re.compile(
    r"(?i:none|null|nil|true|false|undefined|string|str|int(?:eger)?|bool(?:ean)?|number|bytes|text"
    r"|any|object|optional"
    r"|required|secretstr|varchar|n/a|yes|no|\*+|x{3,}|\.{3}|…|-+|\$)\Z"
    r"|\$[A-Z_][A-Z0-9_]*\Z|(?:self|settings|config|process\.env|os\.environ|args|options|request"
    r"|req|this|env)\.[\w.]+\Z"
    r"|(?i:must|should|is|are|was|required|optional|invalid|incorrect|wrong|missing|expired|not"
    r"|cannot|can't|the|your"
    r"|please|at|minimum|expected|unexpected|no|use|enter|see|how|what|too)(?:[ ]|\Z)"
)
"""Values in which a text speaks of secrets, and has none."""
_COMPLAINT = re.compile(r"(?i:unexpected|unknown|unrecognized|illegal)\s\Z")
_IS = (
    r"(?:\s{1,3}(?:is|was|has|been|be|now|set|changed|reset|to|as|will|still|code|ist|lautet|wurde"
    r"|auf|est|es|era|è|é"
    r"|это|für|for|of|jetzt|current(?:ly)?|(?<=for\s)\w{1,30}|(?<=of\s)\w{1,30}"
    r"|(?<=for\sthe\s)\w{1,30})){1,6}+\s{1,3}"
)
_SAID = re.compile(rf"{_IS}[\"'“„«`]?(?P<said>[^\s\"'“”„«»`<>]{{4,200}}+)")
_UNIT = re.compile(
    r"[(~]?\d[\d.,:/-]*[A-Za-z%-]{0,12}[.,;:)!?]*\Z|(?i:sha\d+|md5|base64|utf-?8|oauth2?|ed25519"
    r"|x509|https?\S*|v\d[\d.]*)[.,;:)!?]*\Z"
    r"|.*(?:\(|\))"
)
_WEAK_END = re.compile(rf"(?:[ _-]?(?:{'|'.join(WEAK_SUFFIXES)}))?\d{{0,3}}\.?(?![a-z0-9])")
_WEAK_BEFORE = re.compile(rf"(?:^|[^a-z]|\\[bfnrt])(?:{'|'.join(WEAK_PREFIXES)})?\Z")
_WEAK_VALUE = re.compile(
    rf"{_BETWEEN}(?:{_QUOTED}|(?P<number>\+?[\d(][\d ()/.-]{{5,24}}+)"
    rf"|(?P<plain>[^\s,;&\"'{{}}\[\]()<>\\]{{1,64}}+))"
)
_REST = re.compile(r"[^\s,;&\"'{}\[\]()<>\\]*+")
_WEAK_SIGN = re.compile(rf"{_BETWEEN}|\\{{0,8}}[\"']|[ ]?>|\s")
_CODE_SAID = re.compile(
    r"(?: (?:code|number|nummer))?(?: (?:is|ist|est|es|lautet|was|now|again"
    r"|to)){1,5}+:? [\"'“]?(\d{4,8}|\d{3}[ -]\d{3})(?!\w)"
)
_CODES = (
    "pin", "otp", "passcode", "tan", "einmalcode", "verification code", "security code",
    "confirmation code", "access code",
    "one-time code", "login code",
)  # fmt: skip
_IS_YOURS = (" is your ", " ist ihr ", " ist dein ")
_CODE_BEFORE = re.compile(r"(?<!\w)(\d{4,8}|\d{3}-\d{3})\Z")
_CODE_AFTER = re.compile(r"[^.\n]{0,40}?(?:code|otp|pin|tan)\b")
_NAMED = re.compile(
    r"""(?i:name|key|id|field"""
    r"""|label)\\{0,8}["']?\s{0,4}+[=:]\s{0,4}+\\{0,8}["']?(?P<name>[\w.-]{1,80}+)\\{0,8}["']?[\s,;]{1,40}+"""
    r"""(?:type=["']\w{1,20}["'] )?\\{0,8}["']?(?i:value)\\{0,8}["']?\s{0,4}+(?:="""
    r"""|(?P<colon>[:\uff1a]))\s{0,4}+"""
    rf"""(?:{_QUOTED}|(?P<plain>[^\s,;&"'{{}}\[\]()<>\\]++))"""
)
_ELEMENT = re.compile(
    r"<(?:[\w-]{1,40}:)?(?P<name>[\w.-]{1,80})(?P<more>\s[^<>]{0,300}+)?>\s{0,40}+"
    r"(?:<!\[CDATA\[(?P<data>(?:[^\]]++|\](?!\]>))++)|(?P<text>[^<]++)(?=</))"
)
_ATTRIBUTE = re.compile(r"""(?i:name|key|id)=["']([\w.-]{1,80})["']""")


class Names:
    """Finds what stands beside the names of `keys`."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        # By the longest word of each, which is looked for before anything else.
        self._strong: dict[str, list[re.Pattern[str]]] = {}
        for words in sorted(keys.strong, key=lambda words: -len("".join(words))):
            plural = "" if words[-1].endswith("token") or not words[-1].isascii() else "s?"
            pattern = re.compile("[ _.-]?".join(map(re.escape, words)) + plural)
            self._strong.setdefault(max(words, key=len), []).append(pattern)
        separated = ("[\\W_]*+".join(map(re.escape, words)) for words in keys.strong)
        self._anywhere = [
            (max(words, key=len), re.compile(each))
            for words, each in zip(keys.strong, separated, strict=True)
        ]
        self.signs = {sign for sign, _ in self._anywhere}
        self._ascii = {sign: patterns for sign, patterns in self._strong.items() if sign.isascii()}

    def may_stand_in(self, text: str, low: str) -> bool:
        """False only where neither a text in it nor a field of it, being JSON, holds a secret beside its
        name."""  # Names are compared casefolded: `ß` is `ss`.
        folded = low if low.isascii() else text.casefold()
        return (
            self.may_be_named(folded)
            or any(_WEAK_SIGN.match(text, end) for _, end in weak_names(text, low))
            or any(True for _ in _codes(text, low))
        )

    def may_be_named(self, folded: str) -> bool:
        """Whether a strong name is in a casefolded text."""
        return any(sign in folded and each.search(folded) for sign, each in self._anywhere)

    def find(self, text: str, low: str) -> Iterator[Span]:
        """Spans of the values; names and quotes stay."""
        signs = self._ascii if low.isascii() else self._strong
        for sign, patterns in signs.items():
            if sign in low:
                for pattern in patterns:
                    yield from _assigned(pattern, text, low)
        has_signs = ":" in text or "=" in text or "\uff1a" in text
        if has_signs:
            yield from _weak(text, low)
        yield from _codes(text, low)
        if "value" in low and has_signs:
            for match in _NAMED.finditer(text):
                if self._fits(match["name"], match):
                    yield _value(match)
        if "</" in text or "<![CDATA[" in text:
            yield from self._elements(text)

    def _elements(self, text: str) -> Iterator[Span]:
        for match in _ELEMENT.finditer(text):
            names = [match["name"], *_ATTRIBUTE.findall(match["more"] or "")]
            if any(self._fits(name, match) for name in names):
                yield _value(match)

    def _fits(self, name: str, match: re.Match[str]) -> bool:
        start, end = _value(match)
        return self._keys.tells(name, match.string[start:end])


def _assigned(pattern: re.Pattern[str], text: str, low: str) -> Iterator[Span]:
    done = 0
    for name in pattern.finditer(low):
        if name.start() < done:
            continue
        match = _ASSIGNED.match(text, name.end())
        if match is None:
            said = _SAID.match(text, name.end())
            if said and any(map(str.isdigit, said["said"])) and not _UNIT.match(said["said"]):
                start, end = said.span("said")
                yield start, start + len(text[start:end].rstrip(".,;:)?"))
            continue
        done = match.end()
        kind = match.lastgroup
        start, end = _value(match)
        if kind == "plain" and _says_nothing(text, name.span(), start, end):
            done = name.end()
            continue
        yield start, end


def weak_names(text: str, low: str) -> Iterator[tuple[str, int]]:
    """Weak names with where they end: `pin`, `PIN-Code`, `db_pass`, `userPass`, not `spin` and `passed`."""
    for name in WEAK:
        start = low.find(name)
        while start >= 0:
            end = start + len(name)
            match = _WEAK_END.match(low, end)
            if match and (
                _WEAK_BEFORE.search(low, max(0, start - 6), start)
                or (text[start].isupper() and text[start - 1].islower())
            ):
                yield name, match.end()
            start = low.find(name, end)


def _weak(text: str, low: str) -> Iterator[Span]:
    done = 0
    for name, after in weak_names(text, low):
        match = _WEAK_VALUE.match(text, after) if after > done else None
        if match is None:
            continue
        start, end = _value(match)
        value = text[start:end].rstrip(" .(-/") if match.lastgroup == "number" else text[start:end]
        if fits(name, value):
            end = start + len(value)
            if match.lastgroup == "plain":
                rest = _REST.match(text, end)
                end = rest.end() if rest else end
            done = end
            yield start, end
        elif match.lastgroup == "number":
            first = _REST.match(text, start, end)
            if first and fits(name, first[0]):
                yield first.span()


def _codes(text: str, low: str) -> Iterator[Span]:
    """`Your PIN is 5930`, `482913 is your login code`"""
    for name in _CODES:
        start = low.find(name)
        while start >= 0:
            end = start + len(name)
            match = _CODE_SAID.match(low, end) if not low[start - 1 : start].isalnum() else None
            if match:
                yield match.span(1)
            start = low.find(name, end)
    for words in _IS_YOURS:
        start = low.find(words)
        while start >= 0:
            before = _CODE_BEFORE.search(low, max(0, start - 9), start)
            if before and _CODE_AFTER.match(low, start + len(words)):
                yield before.span(1)
            start = low.find(words, start + len(words))


def _says_nothing(text: str, name: Span, start: int, end: int) -> bool:
    """Whether what looks like an unquoted value is code, or words about secrets."""
    value = text[start:end]
    if _NO_VALUE.match(value) or _COMPLAINT.search(text, max(0, name[0] - 14), name[0]):
        return True
    # `self.token = token` and `password: password of the user`
    if value.partition(" ")[0].lower() == text[name[0] : name[1]].lower():
        return True
    return text[end : end + 1] in ("(", "[") and _REFERENCE.match(value) is not None


def _value(match: re.Match[str]) -> Span:
    assert match.lastgroup is not None
    return match.span(match.lastgroup)

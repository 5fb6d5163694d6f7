"""Numbers of people and their money: payment cards, IBANs, telephones, US social security numbers.

All of them are checked by more than their shape where they can be, since most numbers are harmless.
"""

import re
from collections.abc import Iterator
from itertools import accumulate

from runglass.engine.capture.redaction.views import UUID_PATTERN, Span

# Lookbehinds stand behind the first character: so `re` skips ahead to it.
_MANY = re.compile(r"\d(?<!\d\d)(?:[ ./()-]{0,3}\d){7,}+")
"""What all of these have; the first digit may have `+` or `(` before it."""
_DECIMAL = re.compile(r"\d{1,4}\.\d+|\d{4}-\d\d-\d\d|\d{8,11}")
_MANY_IN_BYTES = re.compile(
    rb"[0-9](?<![0-9]{2})(?<![0-9]\.[0-9])"
    rb"(?!(?:[0-9]{0,3}\.[0-9]++|[0-9]{3}-[0-9]{2}-[0-9]{2}|[0-9]{7,10}+)(?![ ./()-]{0,3}[0-9]))"
    rb"(?:[ ./()-]{0,3}[0-9]){7,}+"
)
"""`_MANY` without `_DECIMAL` and without digits of other scripts, which is quicker to look for in UTF-8."""
_AROUND = 4
"""Characters before and behind a number that can decide about it."""
_DIGITS = re.compile(r"\d(?<!\d\d)(?<!\d\.\d)(?:[ -]?\d){11,}+")
_UUID_LENGTH = 36
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11,16}|35\d{14,17}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12,15}|62\d{14,17}|(?:50|5[6-8]|6[0379])\d{10,17}"
)
"""How the numbers of a card's issuer begin, and how long they are."""
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22,
    "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25,
    "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
_IBAN = re.compile(
    r"\d\d(?<=[A-Za-z]{2}\d\d)(?<![A-Za-z0-9][A-Za-z]{2}\d\d)(?=((?:[ -]?[A-Za-z0-9]){11,30}+))"
)
_SSN = re.compile(r"[0-8](?<![\w-]\d)\d\d(?<!000|666)([- ])(?!00)\d\d\1(?!0000)\d{4}(?![\w-])")
_PHONES = (
    # +44 20 7946 0958, +1 (415) 555-0132
    re.compile(r"\+(?<![\w+.)]\+)[1-9]\d{0,2}(?:[ ./-]{0,2}\(0?\d{0,4}\))?(?:[ ./-]?\d){6,13}+(?!\w)"),
    # (415) 555-0132
    re.compile(r"\((?<![\w(.+-]\()[2-9]\d\d\) ?[2-9]\d\d[-. ]\d{4}(?![\w-]|\.\d)"),
    # 415-555-0132
    re.compile(r"[2-9](?<![\w(.+-]\d)\d\d([-. ])[2-9]\d\d\1\d{4}(?![\w-]|\.\d)"),
    # 0049 …, 06 12 34 56 78 as in France, 07700 900123 and 020 7946 0958 as in the United Kingdom
    re.compile(
        r"0(?<![\w.,+-]0)(?<!\d[ -]0)(?:0[1-9]\d{1,2}[ /-]\(?\d(?:[ ()./-]{0,2}\d){6,11}+(?!\w)"
        r"|(?:[1-9]([ .-])\d\d(?:\1\d\d){3}|7\d{3} \d{6}|20 [378]\d{3} \d{4}|1\d{3} \d{6}|11\d \d{3} \d{4})"
        r"(?![\w]|[ .,-]\d))"
    ),
)
_SHORT_GROUPS = re.compile(r"\+\d{1,4}(?:[ .]\d{1,2}){0,3}$|\+\d{8,9}$")


def find_numbers(text: str, low: str) -> Iterator[Span]:
    """Spans of numbers that are payment cards, IBANs, telephones or US social security numbers."""
    clusters = [match.span() for match in _MANY.finditer(text)]
    if not clusters:
        return
    for start, end in clusters:
        if not _DECIMAL.fullmatch(text, start, end):
            yield from _in_cluster(text, start, end)
    for match in _IBAN.finditer(text):
        start = match.start() - 2
        length = _iban_length(text[start : match.end(1)])
        if length:
            yield start, start + length


def may_hold_numbers(data: bytes) -> bool:
    """False only where `find_numbers` finds nothing in the UTF-8 but IBANs, or digits of other scripts."""
    for match in _MANY_IN_BYTES.finditer(data):
        start, end = match.span()
        begin = max(0, start - _AROUND)
        # What is no ASCII counts as no letter: nothing more speaks against a number then.
        text = data[begin : end + _AROUND].decode("ascii", "replace")
        if any(True for _ in _in_cluster(text, start - begin, end - begin)):
            return True
    return False


def _in_cluster(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _DIGITS.finditer(text, start, end):
        for card in _cards(match[0], match.start()):
            if not _is_in_uuid(text, *card):
                yield card
    if end - start < 9 or (text[start:end].isdigit() and text[start - 1 : start] != "+"):
        return
    # One character more, since what follows decides.
    for pattern in (_SSN, *_PHONES):
        for match in pattern.finditer(text, max(0, start - 2), end + 1):
            digits = sum(map(str.isdigit, match[0]))
            if match.end() <= end and 8 <= digits <= 15 and not _SHORT_GROUPS.match(match[0]):
                yield match.span()


def _is_in_uuid(text: str, start: int, end: int) -> bool:
    """Whether the digits are a part of an id: of many random ones some look like a card."""
    ids = UUID_PATTERN.finditer(text, max(0, start - _UUID_LENGTH), end + _UUID_LENGTH)
    return any(match.start() <= start and end <= match.end() for match in ids)


def is_card(number: int) -> bool:
    return 10**11 <= number < 10**19 and any(_cards(str(number), 0))


def _cards(run: str, offset: int) -> Iterator[Span]:
    """Spans of the groups that make up card numbers in a run of digits grouped by spaces or dashes."""
    groups = [(match.start(), match[0]) for match in re.finditer(r"\d+", run)]
    digits = [int(digit) for _, group in groups for digit in group]
    ends = list(accumulate(len(group) for _, group in groups))
    # Running sums of the check, with the even or the odd digits doubled: any window then costs the same.
    sums = [
        [0, *accumulate(_DOUBLED[digit] if i % 2 == odd else digit for i, digit in enumerate(digits))]
        for odd in (0, 1)
    ]
    plain = "".join(group for _, group in groups)
    for first, (begin, group) in enumerate(groups):
        start = ends[first] - len(group)
        if not 2 <= digits[start] <= 6:
            continue
        for last in range(first, min(first + 19, len(groups))):
            end = ends[last]
            if end - start > 19:
                break
            if (
                end - start >= 12
                and (sums[end % 2][end] - sums[end % 2][start]) % 10 == 0
                and _ISSUERS.fullmatch(plain, start, end)
            ):
                final, digits_of_last = groups[last]
                yield offset + begin, offset + final + len(digits_of_last)


def _iban_length(found: str) -> int:
    """How many characters of the text are an IBAN; 0 if none are."""
    length = _IBAN_LENGTHS.get(found[:2].upper())
    if length is None:
        return 0
    plain: list[str] = []
    for position, letter in enumerate(found, 1):
        if letter.isalnum():
            plain.append(letter.upper())
        if len(plain) == length:
            number = "".join(str(int(letter, 36)) for letter in [*plain[4:], *plain[:4]])
            ends = not found[position : position + 1].isalnum()
            return position if ends and int(number) % 97 == 1 else 0
    return 0

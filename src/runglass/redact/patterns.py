"""Secrets that tell by their own shape: tokens, keys, URLs, addresses, and numbers of people and their money.

Numbers are payment cards, IBANs, telephones and US social security numbers; all of them are checked by more
than their shape where they can be, since most numbers are harmless.
"""

import re
from collections.abc import Iterator
from itertools import accumulate

from runglass.redact.rules import IN_BYTES, PATTERNS, RULES
from runglass.redact.views import Span, positions

_AROUND = 4
"""Characters before and behind a number that can decide about it."""
_LONGEST_ID = 36
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_IBAN_LENGTHS = {
    country: int(length)
    for length, countries in RULES["iban_lengths"].items()
    for country in countries.split()
}
_OF_PEOPLE = ("ssn", "phone_plus", "phone_area", "phone_three", "phone_zero")


def find_tokens(text: str, low: str) -> Iterator[Span]:
    """Spans of tokens, private keys, what URLs carry, and e-mail addresses."""
    for long in PATTERNS["run"].finditer(text):
        yield from (match.span() for match in PATTERNS["token"].finditer(text, *long.span()))
    if "eyJ" in text:
        yield from (match.span() for match in PATTERNS["jwt"].finditer(text))
    if "private key" in low or "putty-user-key" in low:
        yield from (match.span() for match in PATTERNS["private"].finditer(text))
    if "webhook" in low or "hooks.slack" in low:
        yield from (match.span() for match in PATTERNS["hook"].finditer(text))
    in_urls: list[Span] = []
    if "://" in text and "@" in text:
        yield from (in_urls := [match.span(1) for match in PATTERNS["in_url"].finditer(text)])
    if "thin:" in low:
        yield from (match.span(1) for match in PATTERNS["thin"].finditer(low))
    if "bearer" in low or "basic" in low:
        yield from (match.span(1) for match in PATTERNS["scheme"].finditer(low))
    if ("?" in text or "&" in text) and "=" in text:
        yield from (match.span(1) for match in PATTERNS["query"].finditer(text))
    # The host behind a user and password is no part of an address.
    yield from _addresses(text, {end for _, end in in_urls})


def _addresses(text: str, without: set[int]) -> Iterator[Span]:
    for at in positions(text, "@"):
        host = PATTERNS["mail_host"].match(text, at + 1) if at not in without else None
        name = host and PATTERNS["mail_name"].search(text, max(0, at - 64), at)
        if host and name:
            yield name.start(), host.end()


def find_numbers(text: str, low: str) -> Iterator[Span]:
    """Spans of numbers that are payment cards, IBANs, telephones or US social security numbers."""
    clusters = [match.span() for match in PATTERNS["many"].finditer(text)]
    if not clusters:
        return
    for start, end in clusters:
        if not PATTERNS["decimal"].fullmatch(text, start, end):
            yield from _in_cluster(text, start, end)
    for match in PATTERNS["iban"].finditer(text):
        start = match.start() - 2
        length = _iban_length(text[start : match.end(1)])
        if length:
            yield start, start + length


def may_hold_numbers(data: bytes) -> bool:
    """False only where `find_numbers` finds nothing in the UTF-8 but IBANs, or digits of other scripts."""
    for match in IN_BYTES["quick_many"].finditer(data):
        start, end = match.span()
        begin = max(0, start - _AROUND)
        # What is no ASCII counts as no letter: nothing more speaks against a number then.
        text = data[begin : end + _AROUND].decode("ascii", "replace")
        if any(True for _ in _in_cluster(text, start - begin, end - begin)):
            return True
    return False


def _in_cluster(text: str, start: int, end: int) -> Iterator[Span]:
    for match in PATTERNS["digits"].finditer(text, start, end):
        for card in _cards(match[0], match.start()):
            if not _is_in_id(text, *card):
                yield card
    if end - start < 9 or (text[start:end].isdigit() and text[start - 1 : start] != "+"):
        return
    # One character more, since what follows decides.
    for kind in _OF_PEOPLE:
        for match in PATTERNS[kind].finditer(text, max(0, start - 2), end + 1):
            digits = sum(map(str.isdigit, match[0]))
            if match.end() <= end and 8 <= digits <= 15 and not PATTERNS["short_groups"].match(match[0]):
                yield match.span()


def _is_in_id(text: str, start: int, end: int) -> bool:
    """Whether the digits are a part of an id: of many random ones some look like a card."""
    ids = PATTERNS["id"].finditer(text, max(0, start - _LONGEST_ID), end + _LONGEST_ID)
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
                and PATTERNS["issuer"].fullmatch(plain, start, end)
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

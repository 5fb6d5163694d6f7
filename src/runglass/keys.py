"""API keys: made here, shown once, kept as a hash.

A key has 256 random bits, so a plain hash is as safe as a slow one: there is nothing to guess.
"""

import hashlib
import secrets
from typing import NamedTuple

PREFIX = "nk_"
ROLES = ("admin", "run", "read")


class NewKey(NamedTuple):
    """A new key: `key` goes to its owner, `digest` and `hint` into the store."""

    key: str
    digest: bytes
    hint: str


def make_key() -> NewKey:
    key = PREFIX + secrets.token_urlsafe(32)
    return NewKey(key, digest_of(key), key[:8])


def digest_of(key: str) -> bytes:
    """The hash by which a key is found."""
    return hashlib.sha256(key.encode()).digest()

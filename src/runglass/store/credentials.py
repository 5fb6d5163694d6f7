"""What a key looks like, and the digest by which it is found. The key itself is nowhere stored."""

import hashlib
import secrets
from typing import NamedTuple

LOCAL_KEY = 0
"""The id of a key in memory, with which the terminal asks a server in its own process."""
PREFIX = "nk_"
"""How keys begin. A key has 256 random bits: nobody can guess it, so a plain hash is safe."""


class NewKey(NamedTuple):
    """A new key: `key` goes to its owner, `digest` and `hint`, how it begins, into the store."""

    key: str
    digest: bytes
    hint: str


def make_key() -> NewKey:
    """A key that reads `nk_live_<id>_<secret>`; all before the secret is its hint.

    Keys of older shapes stay good, as a key is found by its hash alone.
    """
    hint = f"{PREFIX}live_{secrets.token_hex(4)}"
    key = f"{hint}_{secrets.token_hex(32)}"
    return NewKey(key, digest_of(key), hint)


def digest_of(key: str) -> bytes:
    """The hash by which a key is found."""
    return hashlib.sha256(key.encode()).digest()

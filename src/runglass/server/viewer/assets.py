"""The files of the viewer as they are sent: under one hash of them all, so that a browser may keep them.

A page of one version never gets a module of another, and nothing is asked for twice. Which modules there are
is in the page itself, so that a browser fetches all of them at once.
"""

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

SHELL = "shell.html"
MAIN = "main.js"
STYLES = "styles"

MEDIA_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "html": "text/html; charset=utf-8",
}

PAGE_HEADERS = {
    "content-security-policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "font-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Headers that let a page of run data, in which any text may be an attack, load our own files and nothing
else, and make no markup of text."""


class Asset(NamedTuple):
    """A file, plain and compressed."""

    content: bytes
    gzipped: bytes
    media_type: str


class Assets(NamedTuple):
    """All files: `shell` is the page, `by_path` has what it loads, `digest` is the hash in its links."""

    digest: str
    shell: Asset
    by_path: dict[str, Asset]


@cache
def assets() -> Assets:
    """The files, read once in the life of the process: some ten milliseconds."""
    found = dict(sorted(_files(files(__package__), "")))
    page = found.pop(SHELL)
    digest = hashlib.sha256(page)
    for path, content in found.items():
        digest.update(b"%b %d " % (path.encode(), len(content)) + content)
    name = digest.hexdigest()[:16]
    return Assets(
        digest=name,
        shell=_asset(SHELL, _with_links(page, name, list(found))),
        by_path={path: _asset(path, content) for path, content in found.items()},
    )


def _files(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _files(each, f"{prefix}{each.name}/")
        elif each.name.rpartition(".")[2] in MEDIA_TYPES:
            found.append((f"{prefix}{each.name}", each.read_bytes()))
    return found


def _with_links(page: bytes, digest: str, paths: list[str]) -> bytes:
    base = f"/viewer/{digest}"
    links = [f'<link rel="stylesheet" href="{base}/{path}">' for path in paths if path.endswith(".css")]
    links += [
        f'<link rel="modulepreload" href="{base}/{path}">'
        for path in paths
        if path.endswith(".js") and "/" in path
    ]
    text = page.decode().replace("{base}", base).replace("{links}", "\n    ".join(links))
    return text.encode()


def _asset(path: str, content: bytes) -> Asset:
    return Asset(content, gzip.compress(content, mtime=0), MEDIA_TYPES[path.rpartition(".")[2]])

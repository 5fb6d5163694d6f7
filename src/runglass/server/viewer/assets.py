"""The files of the viewer as they are sent: under one hash of them all, so that a browser may keep them.

A page of one version never gets a script of another, and nothing is asked for twice. Browsers load the
modules as one script; for whoever looks into it, its map leads to the modules themselves.
"""

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from runglass.server.viewer.bundle import bundle, source_map

SHELL = "shell.html"
MAIN = "main.js"
STYLES = "styles.css"
"""All of `styles/`, joined: each further request takes a browser longer than its bytes."""
SCRIPT = "viewer.js"
SOURCE_MAP = "viewer.js.map"
LOADED = (SHELL, STYLES, SCRIPT, "icon.svg")
"""What browsers load. The rest is for who looks into the script, or wants to read a licence."""

LEVEL = 6
"""Of the compression: a higher one takes half as long again for a part in three hundred."""

MEDIA_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "map": "application/json",
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
    """A file, plain and, if it is one that browsers load, compressed."""

    content: bytes
    gzipped: bytes | None
    media_type: str


class Assets(NamedTuple):
    """All files: the page is the `shell`, whatever it shows; `by_path` has what it loads, below `digest`."""

    digest: str
    by_path: dict[str, Asset]
    shell: Asset


@cache
def assets() -> Assets:
    """The files, read once in the life of the process: some twenty milliseconds."""
    found = dict(sorted(_files(files(__package__), "")))
    shell = found.pop(SHELL)
    sheets = [path for path in found if path.endswith(".css")]
    found[STYLES] = b"".join(found.pop(path) for path in sheets)
    modules = {path: content.decode() for path, content in found.items() if path.endswith(".js")}
    script, order = bundle(modules, MAIN)
    found[SCRIPT] = f"{script}//# sourceMappingURL={SOURCE_MAP}\n".encode()
    found[SOURCE_MAP] = source_map(modules, order).encode()
    digest = hashlib.sha256(shell)
    for path, content in found.items():
        digest.update(b"%b %d " % (path.encode(), len(content)) + content)
    name = digest.hexdigest()[:16]
    return Assets(
        digest=name,
        by_path={path: _asset(path, content) for path, content in found.items()},
        shell=_asset(SHELL, shell.replace(b"{base}", f"/viewer/{name}".encode())),
    )


def _files(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _files(each, f"{prefix}{each.name}/")
        elif each.name.rpartition(".")[2] in MEDIA_TYPES:
            found.append((f"{prefix}{each.name}", each.read_bytes()))
    return found


def _asset(path: str, content: bytes) -> Asset:
    gzipped = gzip.compress(content, LEVEL, mtime=0) if path in LOADED else None
    return Asset(content, gzipped, MEDIA_TYPES[path.rpartition(".")[2]])

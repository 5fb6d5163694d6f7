"""The files of the viewer as they are sent: under one hash of them all, so that a browser may keep them.

A page of one version never gets a module of another, and nothing is asked for twice. Which modules a page
begins with is in the page itself, so that a browser fetches all of them at once; it has the others once it is
seen.
"""

import gzip
import hashlib
import html
import posixpath
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

SHELL = "shell.html"
MAIN = "main.js"
STYLES = "styles.css"
"""All of `styles/`, joined: each further request takes a browser longer than its bytes."""
PAGES = {"runs": "runs/page.js", "run": "run/page.js", "compare": "compare/page.js"}
"""The module of each page; that of another one is loaded when somebody goes there."""
_IMPORTED = re.compile(rb'\bfrom *"(\.[^"]+)"')

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
    """All files: `by_path` has what pages load, `digest` is the hash in their links."""

    digest: str
    by_path: dict[str, Asset]
    shells: dict[str, bytes]

    def page(self, name: str, reads: Iterable[str]) -> Asset:
        """A page of `PAGES`. What it `reads` of the API is on its way before a script asks for it."""
        links = "".join(
            f'<link rel="preload" as="fetch" crossorigin href="{html.escape(path)}">\n    ' for path in reads
        )
        return _asset(SHELL, self.shells[name].replace(b"{reads}", links.encode()))


@cache
def assets() -> Assets:
    """The files, read once in the life of the process: some ten milliseconds."""
    found = dict(sorted(_files(files(__package__), "")))
    shell = found.pop(SHELL)
    sheets = [path for path in found if path.endswith(".css")]
    found[STYLES] = b"".join(found.pop(path) for path in sheets)
    digest = hashlib.sha256(shell)
    for path, content in found.items():
        digest.update(b"%b %d " % (path.encode(), len(content)) + content)
    name = digest.hexdigest()[:16]
    return Assets(
        digest=name,
        by_path={path: _asset(path, content) for path, content in found.items()},
        shells={
            page: _with_links(shell, f"/viewer/{name}", _modules(found, [MAIN, module]))
            for page, module in PAGES.items()
        },
    )


def _files(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _files(each, f"{prefix}{each.name}/")
        elif each.name.rpartition(".")[2] in MEDIA_TYPES:
            found.append((f"{prefix}{each.name}", each.read_bytes()))
    return found


def _modules(found: dict[str, bytes], entries: list[str]) -> list[str]:
    """The modules that are loaded before the first of them runs."""
    wanted: dict[str, None] = {}
    while entries:
        path = entries.pop(0)
        if path not in wanted:
            wanted[path] = None
            folder = posixpath.dirname(path)
            imported = _IMPORTED.findall(found[path])
            entries += [posixpath.normpath(posixpath.join(folder, name.decode())) for name in imported]
    return list(wanted)


def _with_links(shell: bytes, base: str, modules: list[str]) -> bytes:
    links = [f'<link rel="stylesheet" href="{base}/{STYLES}">']
    links += [f'<link rel="modulepreload" href="{base}/{path}">' for path in modules if path != MAIN]
    text = shell.decode().replace("{base}", base).replace("{links}", "\n    ".join(links))
    return text.encode()


def _asset(path: str, content: bytes) -> Asset:
    return Asset(content, gzip.compress(content, mtime=0), MEDIA_TYPES[path.rpartition(".")[2]])

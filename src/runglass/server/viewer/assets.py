"""The files of the viewer as they are sent: under one hash of them all, so that a browser may keep them.

A page of one version never gets a script of another, and nothing is asked for twice. Browsers load the
modules as one script, in which each is a function of its name.
"""

import gzip
import hashlib
import posixpath
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

SHELL = "shell.html"
MAIN = "main.js"
STYLES = "styles.css"
"""All of `styles/`, joined: each further request takes a browser longer than its bytes."""
SCRIPT = "viewer.js"
LOADED = (SHELL, STYLES, SCRIPT, "icon.svg")
"""What browsers load. The rest is for who wants to read a licence."""

LEVEL = 6
"""Of the compression: a higher one takes half as long again for a part in three hundred."""

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
    modules = {path: found.pop(path).decode() for path in list(found) if path.endswith(".js")}
    found[SCRIPT] = bundle(modules, MAIN).encode()
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


# A statement begins a line, or in a minified library follows on another one. That is asked behind the word:
# a pattern that begins with a word is found in a tenth of the time.
_IMPORTS, _EXPORTS = (rf"{word}(?<![^\n;}}]{word})" for word in ("import", "export"))
_IMPORT = re.compile(_IMPORTS + r' ?(\w+|\{[^}]*\}) ?from ?"(\.[^"]+)";')
_EXPORT = re.compile(_EXPORTS + r' ?\{([^}]*)\}(?: ?from ?"(\.[^"]+)")?;')
_DECLARED = re.compile(_EXPORTS + r" (?=(?:async )?(?:function|class|const) (?:(\w+)|\[([^\]]*)\]))")
_DEFAULT = re.compile(_EXPORTS + r" default\b")
_OTHER = (re.compile(_IMPORTS + r"\b"), re.compile(_EXPORTS + r"\b"))


def bundle(modules: Mapping[str, str], main: str) -> str:
    """The script that does what the module `main` does.

    Each module becomes a function that is called once, after those of the modules that it imports, and gives
    what it exports. It keeps its lines.

    Raises ValueError for an import or an export of a form that the viewer's modules do not have, for modules
    that import each other, and for one that is not there.
    """
    found: dict[str, str] = {}
    going: list[str] = []

    def take(path: str) -> None:
        if path in going:
            raise ValueError(f"modules import each other: {' -> '.join([*going, path])}")
        if path not in modules:
            raise ValueError(f"{going[-1:]} imports {path!r}, which is not there")
        if path in found:
            return
        going.append(path)
        module = _Module(path, modules[path])
        for imported in module.imported:
            take(imported)
        found[going.pop()] = module.function

    take(main)
    return '"use strict";' + "".join(found.values())


class _Module:
    """A module's function, and the paths of the modules that it imports."""

    def __init__(self, path: str, text: str) -> None:
        self.imported: list[str] = []
        self._folder = posixpath.dirname(path)
        self._exported: list[str] = []
        text = _IMPORT.sub(self._import, text)
        text = _EXPORT.sub(self._export, text)
        text = _DECLARED.sub(self._declare, text)
        if _DEFAULT.search(text):
            text = _DEFAULT.sub("const $default =", text)
            self._exported.append("default: $default")
        for other in _OTHER:
            if (found := other.search(text)) is not None:
                form = text[found.start() :][:60]
                raise ValueError(f"{path!r} has an import or export of another form: {form!r}")
        exported = ", ".join(self._exported)
        self.function = f"const {_name(path)} = (() => {{ {text}\nreturn {{ {exported} }}; }})();\n"

    def _import(self, found: re.Match[str]) -> str:
        names = found[1] if found[1].startswith("{") else f"{{ default: {found[1]} }}"
        return f"const {re.sub(' as ', ': ', names)} = {self._module(found[2])};"

    def _export(self, found: re.Match[str]) -> str:
        module = f"{self._module(found[2])}." if found[2] else ""
        for each in found[1].split(","):
            name, _, renamed = each.strip().partition(" as ")
            self._exported.append(f"{renamed or name}: {module}{name}")
        return "\n" * found[0].count("\n")

    def _declare(self, found: re.Match[str]) -> str:
        self._exported += [found[1]] if found[1] else re.split(r",\s*", found[2])
        return ""

    def _module(self, path: str) -> str:
        self.imported.append(posixpath.normpath(posixpath.join(self._folder, path)))
        return _name(self.imported[-1])


def _name(path: str) -> str:
    return "$" + re.sub(r"\W", "_", path.removesuffix(".js"))

"""The modules of the viewer as one script: a browser takes longer for a file than for what is in it.

Each module becomes a function that is called once, after those of the modules that it imports, and gives what
it exports. It keeps its lines, so that the script's map names the module and the line of whatever is thrown.
"""

import json
import posixpath
import re
from collections.abc import Mapping
from itertools import pairwise

# A statement begins a line, or in a minified library follows on another one. That is asked behind the word:
# a pattern that begins with a word is found in a tenth of the time.
_IMPORTS, _EXPORTS = (rf"{word}(?<![^\n;}}]{word})" for word in ("import", "export"))
_IMPORT = re.compile(_IMPORTS + r' ?(\w+|\{[^}]*\}) ?from ?"(\.[^"]+)";')
_EXPORT = re.compile(_EXPORTS + r' ?\{([^}]*)\}(?: ?from ?"(\.[^"]+)")?;')
_DECLARED = re.compile(_EXPORTS + r" (?=(?:async )?(?:function|class|const) (?:(\w+)|\[([^\]]*)\]))")
_DEFAULT = re.compile(_EXPORTS + r" default\b")
_OTHER = (re.compile(_IMPORTS + r"\b"), re.compile(_EXPORTS + r"\b"))
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def bundle(modules: Mapping[str, str], main: str) -> tuple[str, list[str]]:
    """The script that does what the module `main` does, and the paths of the modules in it, in order.

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
    return '"use strict";' + "".join(found.values()), list(found)


def source_map(modules: Mapping[str, str], paths: list[str]) -> str:
    """The map of the script of these modules, line for line. Their paths are relative to it."""
    lines = [(at, line) for at, path in enumerate(paths) for line in range(modules[path].count("\n") + 2)]
    steps = [(to[0] - before[0], to[1] - before[1]) for before, to in pairwise([(0, 0), *lines])]
    mappings = ";".join(f"A{_digits(source)}{_digits(line)}A" for source, line in steps)
    return json.dumps({"version": 3, "sources": paths, "names": [], "mappings": mappings})


class _Module:
    """A module's function, and the paths of the modules that it imports."""

    def __init__(self, path: str, text: str) -> None:
        self.imported: list[str] = []
        self._folder = posixpath.dirname(path)
        self._exported: list[str] = []
        text = _IMPORT.sub(self._import, text)
        text = _EXPORT.sub(self._export, text)
        text = _DECLARED.sub(self._declare, text)
        text = _DEFAULT.sub(self._default, text)
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

    def _default(self, found: re.Match[str]) -> str:
        self._exported.append("default: $default")
        return "const $default ="

    def _module(self, path: str) -> str:
        self.imported.append(posixpath.normpath(posixpath.join(self._folder, path)))
        return _name(self.imported[-1])


def _name(path: str) -> str:
    return "$" + re.sub(r"\W", "_", path.removesuffix(".js"))


def _digits(number: int) -> str:
    """A number as maps have it: five bits a digit, the smallest first, with the sign before all of them."""
    left = abs(number) << 1 | (number < 0)
    digits = ""
    while left > 31:
        digits += _BASE64[left & 31 | 32]
        left >>= 5
    return digits + _BASE64[left]

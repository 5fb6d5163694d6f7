"""The text of a flow file as plain data, and the way back from a value to its line and column.

Flows are edited as text, so a mistake must come with its position. YAML 1.2 (JSON is a part of it) is read
into JSON values only, within bounds that a hostile file cannot pass. This file must not know what a flow is:
the rules that judge the data answer with findings, and a `Document` turns them into located problems.
"""

import codecs
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, StreamMark
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from runglass.errors import FlowFileError, Problem
from runglass.flows.diagnostics import Finding, Path, path_text, shown

MAX_DEPTH = 150
MAX_ALIASED_VALUES = 100_000

_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CODE_POINT = re.compile(r"\\U([0-9a-fA-F]{8})")
_OTHER_VERSION = re.compile(r"(?:\A|(?<=[\r\n]))%YAML\b(?![ \t]+1\.2(?:\s|\Z))")
_WIDE_BOMS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Document:
    """A text that could be read. `value` is JSON; `problems` are mistakes of the writing itself."""

    def __init__(self, text: str, yaml: YAML, root: Node, *, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.problem_paths: set[Path] = set()
        self._lines = re.split("\r\n|\r|\n", text)
        self._constructor = yaml.constructor
        self._nodes: dict[Path, tuple[Node | None, Node]] = {}
        self._seen: set[int] = set()
        self._aliased = 0
        self.value = self._read(root, (), None)

    def problem(self, finding: Finding) -> Problem:
        """The finding with its position in the text."""
        line, column = self._position(finding.path, at_key=finding.at_key)
        message = finding.message
        if finding.line is not None:
            inside = self._position_inside(finding.path, finding.line, finding.column)
            if inside is None:
                message += f" (line {finding.line} of its text)"
            else:
                line, column = inside
        if finding.earlier is not None:
            message += f", first on line {self._position(finding.earlier, at_key=finding.at_key)[0]}"
        return Problem(message, path_text(finding.path), line, column)

    def _position(self, path: Path, *, at_key: bool) -> tuple[int, int]:
        while path not in self._nodes:
            path, at_key = path[:-1], False
        key, node = self._nodes[path]
        # The mark of an empty value (`prompt:`) is at the next token, wherever that is.
        left_out = isinstance(node, ScalarNode) and node.value == "" and node.style is None
        return _line_column(key if key is not None and (at_key or left_out) else node)

    def _position_inside(self, path: Path, line: int, column: int) -> tuple[int, int] | None:
        """Line and column in the file of a position in a scalar; None where folding or escapes hide it."""
        node: Any = self._nodes[path][1]
        texts = node.value.split("\n")
        text = texts[min(line, len(texts)) - 1]
        is_block = node.style in ("|", ">")
        row = node.start_mark.line + line - (0 if is_block else 1)
        if row >= len(self._lines):
            return None
        at = self._lines[row].find(text, node.start_mark.column if row == node.start_mark.line else 0)
        if at < 0 or not (text.strip() or is_block):
            return None
        return row + 1, at + column

    def _read(self, node: Node, path: Path, key: Node | None) -> Any:
        if len(path) > MAX_DEPTH:
            self._stop(f"values are nested deeper than {MAX_DEPTH} levels, or an alias contains itself", node)
        if id(node) in self._seen:
            self._aliased += 1
            if self._aliased > MAX_ALIASED_VALUES:
                self._stop(f"aliases repeat more than {MAX_ALIASED_VALUES:,} values", node)
        self._seen.add(id(node))
        self._nodes[path] = (key, node)
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if isinstance(node, MappingNode) and kind == "map":
            return {
                name: self._read(child, (*path, name), at) for name, at, child in self._members(node, path)
            }
        if isinstance(node, SequenceNode) and kind == "seq":
            return [self._read(child, (*path, index), None) for index, child in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, kind, path)
        return self._refuse(f"the tag {shown(kind)} is not supported", path, node)

    def _members(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Node, Node]]:
        keys: dict[str, Node] = {}
        for key, child in node.value:
            if not isinstance(key, ScalarNode):
                self._refuse("a key must be a string, not a list or an object", path, key)
                continue
            name = self._well_formed(key, path)
            kind = str(key.tag).removeprefix("tag:yaml.org,2002:")
            if name in keys:
                first = _line_column(keys[name])[0]
                self._refuse(
                    f"the key {shown(name)} is given twice, first on line {first}", (*path, name), key
                )
                continue
            keys[name] = key
            if kind == "merge" and key.style is None:
                self._refuse("merge keys (`<<`) are not supported; write the fields out", (*path, name), key)
                continue
            if kind not in ("str", "value"):
                self._refuse(f"the key {name} is not a string; put it in quotes", (*path, name), key)
            yield name, key, child

    def _scalar(self, node: ScalarNode, kind: str, path: Path) -> Any:
        if kind in ("str", "value", "merge"):
            return self._well_formed(node, path)
        if kind == "null":
            return None
        if kind == "timestamp":
            message = f"{node.value} reads as a date, which JSON does not have; put it in quotes"
            return self._refuse(message, path, node)
        if kind not in ("bool", "int", "float"):
            return self._refuse(f"the tag {shown(kind)} is not supported", path, node)
        try:
            value = getattr(self._constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, LookupError, OverflowError):
            return self._refuse(f"{shown(node.value)} cannot be read as {kind}", path, node)
        if kind == "float" and not math.isfinite(value):
            return self._refuse(f"{shown(node.value)} is not a number that JSON can hold", path, node)
        return value

    def _well_formed(self, node: ScalarNode, path: Path) -> str:
        text: str = node.value
        try:
            text.encode()
        except UnicodeEncodeError:
            # JSON writes characters beyond U+FFFF as two escapes, which YAML reads as two characters.
            try:
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self._refuse("an escape names half a surrogate pair, which is not a character", path, node)
                return text.encode(errors="replace").decode()
        return text

    def _refuse(self, message: str, path: Path, node: Node) -> None:
        self.problem_paths.add(path)
        self.problems.append(Problem(message, path_text(path), *_line_column(node)))

    def _stop(self, message: str, node: Node) -> NoReturn:
        raise FlowFileError([Problem(message, "", *_line_column(node))], file=self.file)


def read_document(text: str | bytes, *, file: str, limit_characters: int) -> Document:
    """The text as data. Raises FlowFileError for one that is not UTF-8, not YAML, too large or too deep.

    The YAML scanner is quadratic in the length of some tokens; a mebibyte keeps the worst file at seconds.
    """
    too_large = f"the file is larger than {limit_characters:,} characters (setting flow_limit_bytes)"
    # No character takes more bytes. Whoever read no further may have cut one in two.
    if len(text) > 4 * limit_characters:
        raise FlowFileError([Problem(too_large)], file=file)
    if isinstance(text, str):
        source = text.removeprefix("\ufeff")
    elif text.startswith(_WIDE_BOMS):
        raise FlowFileError([Problem("the file is UTF-16 or UTF-32; save it as UTF-8", "", 1, 1)], file=file)
    else:
        try:
            source = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # Not `text`: the codec counts from behind the byte order mark.
            before = error.object[: error.start].decode()
            message = f"the file is not UTF-8 text: byte 0x{error.object[error.start]:02X}"
            raise FlowFileError([_at_offset(message, before, len(before))], file=file) from error
    if len(source) > limit_characters:
        raise FlowFileError([Problem(too_large)], file=file)
    if found := _NOT_TEXT.search(source):
        message = f"the character U+{ord(found[0]):04X} may not stand in a text file"
        raise FlowFileError([_at_offset(message, source, found.start())], file=file)
    if found := _OTHER_VERSION.search(source):
        # YAML 1.1 reads `off` as false, which no author of a flow expects.
        raise FlowFileError([_at_offset("only YAML 1.2 is read", source, found.start())], file=file)
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH
    yaml.composer.warn_double_anchors = False
    try:
        root = yaml.compose(source)
    except MaxDepthExceededError as error:
        message = f"values are nested deeper than {MAX_DEPTH} levels"
        raise FlowFileError([_at_mark(message, error.problem_mark)], file=file) from error
    except MarkedYAMLError as error:
        message = f"not valid YAML: {_short((error.problem or 'it cannot be read').removeprefix('but '))}"
        if error.context:
            message += f" ({_short(error.context)}"
            message += f" from line {error.context_mark.line + 1})" if error.context_mark is not None else ")"
        if error.problem and "'\\t'" in error.problem:
            message += "; indent with spaces, not tabs"
        problem = _at_mark(message, error.problem_mark or error.context_mark)
        raise FlowFileError([problem], file=file) from error
    except (ValueError, OverflowError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # The library trusts its input in places, as with `chr()` of any number in an escape.
        wrong = next((at for at in _CODE_POINT.finditer(source) if int(at[1], 16) > 0x10FFFF), None)
        reason = "an escape names a character beyond U+10FFFF" if wrong else f"it cannot be read ({error!r})"
        problem = _at_offset(f"not valid YAML: {reason}", source, wrong.start() if wrong else 0)
        raise FlowFileError([problem], file=file) from error
    if root is None:
        raise FlowFileError([Problem("the file is empty", "", 1, 1)], file=file)
    return Document(source, yaml, root, file=file)


def _at_offset(message: str, text: str, offset: int) -> Problem:
    lines = re.split("\r\n|\r|\n", text[:offset])
    return Problem(message, "", len(lines), len(lines[-1]) + 1)


def _at_mark(message: str, mark: StreamMark | None) -> Problem:
    return Problem(message) if mark is None else Problem(message, "", mark.line + 1, mark.column + 1)


def _line_column(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _short(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:157]}…"

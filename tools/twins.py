"""Writes the blocking client from its source on asyncio; `make check` runs it to compare the two.

It goes token by token, so that comments stay: `async` and `await` are left out, names are said the blocking
way. `make twins` writes. What a half does in a way of its own is written by hand: `native.py` in both, and
`transport/asyncio_sockets.py` beside `transport/blocking_sockets.py`.
"""

import difflib
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from subprocess import PIPE

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "src" / "runglass" / "client"
APART = {"__init__.py", "native.py"}

NAMES = {
    "AsyncTransport": "SyncTransport",
    "aclose": "close",
    "aclosing": "closing",
    "aio": "blocking",
    "aiter_bytes": "iter_bytes",
    "anext": "next",
    "asynccontextmanager": "contextmanager",
    "aread": "read",
    "asyncio_sockets": "blocking_sockets",
    "on_asyncio": "blocking",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}


def pairs(client: Path = CLIENT) -> Iterator[tuple[Path, Path]]:
    """Each source, and the file that is written from it."""
    yield client / "transport" / "on_asyncio.py", client / "transport" / "blocking.py"
    for source in sorted((client / "aio").glob("*.py")):
        if source.name not in APART:
            yield source, client / "blocking" / source.name


def blocking(source: Path, target: Path) -> str:
    """The text of `target`, made from its source."""
    text = re.sub(r"AsyncGenerator\[(.+?), None\]", r"Generator[\1, None, None]", source.read_text("utf-8"))
    lines = text.splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    # From the end, so that what is before a change stays where it is.
    for token, following in zip(tokens[-2::-1], tokens[:0:-1], strict=True):
        (row, start), (last_row, end) = token.start, token.end
        if token.type == tokenize.NAME and token.string in ("async", "await"):
            said, end = "", following.start[1]
        elif token.type in (tokenize.NAME, tokenize.STRING):
            # Prose may speak of the other client.
            is_prose = not token.string.strip('"').isidentifier()
            said = re.sub(r"\w+", partial(_blocking_name, is_prose=is_prose), token.string)
        else:
            continue
        lines[row - 1 : last_row] = [lines[row - 1][:start] + said + lines[last_row - 1][end:]]
    about = f"# Written from {source.parent.name}/{source.name} by tools/twins.py; edit that.\n"
    made = about + "".join(lines)
    given = ["--quiet", "--config=pyproject.toml", f"--stdin-filename={target}", "-"]
    for command in (["check", "--fix-only", "--unsafe-fixes", "--select=I,F401,UP028,C416"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, *given]
        made = subprocess.run(ruff, input=made, stdout=PIPE, text=True, check=True, cwd=ROOT).stdout
    return made


def _blocking_name(word: re.Match[str], *, is_prose: bool) -> str:
    if is_prose and word[0] == "AsyncClient":
        return word[0]
    return NAMES.get(word[0]) or re.sub(r"^Async(?=[A-Z])", "", word[0])


def differences(client: Path = CLIENT) -> Iterator[str]:
    """What is not as it would be written, as lines of a diff."""
    for source, target in pairs(client):
        found = target.read_text("utf-8") if target.exists() else ""
        sides = found.splitlines(), blocking(source, target).splitlines()
        yield from difflib.unified_diff(*sides, target.name, f"from {source.name}", lineterm="", n=1)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        for source, target in pairs():
            target.write_text(blocking(source, target), "utf-8")
    found = list(differences())
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.exit("the blocking client is not up to date: run `make twins`" if found else None)

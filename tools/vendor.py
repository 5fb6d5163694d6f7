"""The vendored libraries of the viewer and of its tests: versions, hashes, and how they are renewed.

`python tools/vendor.py` verifies the files, offline; with `--renew` they are fetched from npm, written anew.
For another version, change the table, renew, and take over the hashes that it tells. The `.d.ts` beside
the files are our own; `make check` has the types of the same versions, see `tools/viewer_types/package.json`.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[1]
FOLDER = _ROOT / "src" / "runglass" / "server" / "viewer" / "vendor"
TEST_FOLDER = _ROOT / "tests" / "browser" / "vendor"


class Package(NamedTuple):
    """A package of npm: the hash of its archive, and its files with their names and hashes here."""

    name: str
    version: str
    sha256: str
    files: dict[str, tuple[str, str]]


PACKAGES = [
    Package(
        "preact",
        "11.2.0",
        "3c4456766bd32b6b534d52bf4e9c2a29b33e7eedf6e96ed479300ba1a7888ebf",
        {
            "dist/preact.mjs": (
                "preact.js",
                "225d7a773766e6fb2cfcc45274fe41d2059f5782f3f2c4569aa5132a2d3a2902",
            ),
            "hooks/dist/hooks.mjs": (
                "hooks.js",
                "5c65ab263688d0805862fd0807c779af02c2799c44fda0873dfcb870d0da70a0",
            ),
            "LICENSE": (
                "preact.LICENSE.txt",
                "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4",
            ),
        },
    ),
    Package(
        "@preact/signals-core",
        "1.14.5",
        "94c421ac996214c94f532fb4c43d8ede048a16df0cd9538ffb965174dbe8daba",
        {
            "dist/signals-core.mjs": (
                "signals-core.js",
                "147cdbe5e0e6e9cb35a27f2d4f496f8ba0fbd6beedf9e683e0297a976773b724",
            ),
            "LICENSE": (
                "signals-core.LICENSE.txt",
                "a11fc89e4c6b118854c7a667734a0b2e6bf2af5e45c6686de31adbccc8f3ae8d",
            ),
        },
    ),
    Package(
        "@preact/signals",
        "2.11.4",
        "66ea8221dd8aaa0da2365d49c3f116b071d56cfb63b2e16c072c6b4e08a928b7",
        {
            "dist/signals.mjs": (
                "signals.js",
                "822c3a0f6516b2221beae1f8fea0ca2d0c886eb16ce98949530aa1d2b8ac64d6",
            ),
            "LICENSE": (
                "signals.LICENSE.txt",
                "a11fc89e4c6b118854c7a667734a0b2e6bf2af5e45c6686de31adbccc8f3ae8d",
            ),
        },
    ),
    Package(
        "htm",
        "3.1.1",
        "2425b9bee11409177bcabc7f32e319926fc6690c1701c0b257c88bdff2d5ba90",
        {
            "dist/htm.mjs": ("htm.js", "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4"),
            "LICENSE": (
                "htm.LICENSE.txt",
                "740725f7252e750af735d0028cc534970772f513331e9f68150fede8fb3ce00f",
            ),
        },
    ),
]

TEST_PACKAGES = [
    Package(
        "axe-core",
        "4.14.1",
        "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745",
        {
            "axe.min.js": ("axe.min.js", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"),
            "LICENSE": (
                "axe.LICENSE.txt",
                "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e",
            ),
            "LICENSE-3RD-PARTY.txt": (
                "axe.LICENSE-3RD-PARTY.txt",
                "4f8563870d0fca38bbc3e00b6f670cb7fa9f380ba9f26a7f7d1184a6b18b1653",
            ),
        },
    ),
]
"""What the browser tests load into pages; the wheel has none of it."""

MODULES = {
    "preact": "./preact.js",
    "preact/hooks": "./hooks.js",
    "@preact/signals-core": "./signals-core.js",
}
"""Where what the files import by a bare name is found: a browser knows no such names."""

_IMPORT = re.compile(rb"""((?:from|import) ?)"([^"./][^"]*)\"""")
_MAP = re.compile(rb"//# sourceMappingURL=\S+\s*$")


def rewritten(source: bytes) -> bytes:
    """A module with relative imports and no link to its source map. Raises KeyError for a new import."""
    relative = _IMPORT.sub(lambda found: b'%b"%b"' % (found[1], MODULES[found[2].decode()].encode()), source)
    return _MAP.sub(b"", relative).rstrip() + b"\n"


def problems(folder: Path = FOLDER, packages: Sequence[Package] = PACKAGES) -> Iterator[str]:
    """What is wrong with the vendored files: missing, changed, or not in the table."""
    expected = {name: digest for package in packages for name, digest in package.files.values()}
    for name, digest in expected.items():
        file = folder / name
        if not file.is_file():
            yield f"{name} is missing; python tools/vendor.py --renew fetches it"
        elif (found := _digest(file.read_bytes())) != digest:
            yield f"{name} has the hash {found}, and not {digest}"
    for file in sorted(folder.iterdir() if folder.is_dir() else ()):
        if file.name not in expected and not file.name.endswith(".d.ts"):
            yield f"{file.name} is not in the table of tools/vendor.py"


def renew(folder: Path = FOLDER, packages: Sequence[Package] = PACKAGES) -> None:
    """Fetches the packages and writes their files. Raises CalledProcessError, ValueError for a wrong hash."""
    folder.mkdir(exist_ok=True)
    for package in packages:
        with tempfile.TemporaryDirectory() as place:
            command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
            subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
            (archive,) = Path(place).iterdir()
            found = _digest(archive.read_bytes())
            if found != package.sha256:
                raise ValueError(f"{package.name} {package.version} has the hash {found}")
            with tarfile.open(archive) as files:
                for path, (name, _) in package.files.items():
                    member = files.extractfile(f"package/{path}")
                    if member is None:
                        raise ValueError(f"{package.name} {package.version} has no file {path}")
                    content = member.read()
                    (folder / name).write_bytes(rewritten(content) if path.endswith(".mjs") else content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    if "--renew" in sys.argv[1:]:
        renew()
        renew(TEST_FOLDER, TEST_PACKAGES)
    wrong = [*problems(), *problems(TEST_FOLDER, TEST_PACKAGES)]
    count = len(PACKAGES) + len(TEST_PACKAGES)
    sys.stdout.write("\n".join([*wrong, ""]) if wrong else f"{count} vendored packages are unchanged\n")
    sys.exit(bool(wrong))

"""The page on the architecture names what there is: the rooms, the functions, whoever begins something."""

import ast
import importlib
import re
from operator import attrgetter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "runglass"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = sorted(file.parent for file in PACKAGE.rglob("__init__.py") if file.parent != PACKAGE)
NAME = re.compile(r"\b([a-z_]+(?:\.[a-z_]+)*):([A-Za-z_]\w*(?:\.\w+)*)")
STARTER = re.compile(r"create_task\(|Thread\(|ThreadPoolExecutor\(|Popen\(|to_thread\(|AsyncMonty\(")
OF_A_SERVER = [
    file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] not in {"client", "cli"}
]


def purpose_of(room: Path) -> str:
    """The two sentences with which a folder's docstring begins."""
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    said = re.match(r"(?:(?!\. ).)+\. Knows .+?\.(?= |$)", " ".join((docstring or "").split()))
    assert said, (
        "a folder says in one sentence what it is for, and in the next what it does not know: `Knows …`"
    )
    return said.group()


def test_the_page_has_the_rooms_that_there_are_in_the_words_of_their_docstrings() -> None:
    assert re.findall(r"^\| `([a-z_/]+)/` \| (.*) \|$", PAGE, re.M) == [
        (str(room.relative_to(PACKAGE)), purpose_of(room)) for room in ROOMS
    ]


def test_every_name_on_the_page_is_in_the_code() -> None:
    names = NAME.findall(PAGE)
    assert len(names) > 60
    for module, name in names:
        attrgetter(name)(importlib.import_module(f"runglass.{module}"))


def test_every_module_that_begins_a_task_thread_or_process_is_on_the_page() -> None:
    owners = PAGE.partition("## Who owns what is active")[2].partition("\n## ")[0]
    named = {module for module, _ in NAME.findall(owners)}
    beginning = {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        for file in OF_A_SERVER
        if STARTER.search(file.read_text(encoding="utf-8"))
    }
    assert beginning - {"testing"} <= named

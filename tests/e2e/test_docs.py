"""The pages use one word for each thing and say what the code says, and the examples what they promise."""

import ast
import importlib
import json
import re
import runpy
import shlex
from datetime import UTC, date, datetime
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import get_args

import click
import pytest

from runglass.cli.app import app
from runglass.client.core import run_requests
from runglass.client.core.requests import FlowAddress
from runglass.errors import CODES
from runglass.flows.flow import Step
from runglass.log.events import EVENT_TYPES
from runglass.store.statements import Dialect
from tests.e2e.command import said_by
from tests.servers import server_with

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "runglass"
DOCS = ROOT / "docs"
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
ROOMS = sorted(file.parent for file in PACKAGE.rglob("__init__.py") if file.parent != PACKAGE)
NAME = re.compile(r"\b([a-z_]+(?:\.[a-z_]+)*):([A-Za-z_]\w*(?:\.\w+)*)")
STARTER = re.compile(r"create_task\(|Thread\(|ThreadPoolExecutor\(|Popen\(|to_thread\(|AsyncMonty\(")
OF_A_SERVER = [
    file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] not in {"client", "cli"}
]
MENTION = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.M | re.S)
COMMAND = re.compile(r"(?:^|[ (]|bin/)runglass ([a-z][^\n|&;)]*)", re.M)
"""A command of ours in a block, up to where the shell ends it."""


PAGES = sorted(page for folder in (DOCS, ROOT / "deploy") for page in folder.rglob("*.md"))
each_page = pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *PAGES], ids=lambda page: str(page.relative_to(ROOT))
)

INSTEAD = {
    # A second word for run, step or attempt.
    r"executions?(?! ids?\b)": "run; the wire's `executionId` is the execution id",
    r"(a|each|one|every|further|another) tr(y|ies)": "attempt",
    r"walk(s|ed|ing)?": "step through, or execute: a walk is neither a run nor a step-through",
    r"(try|tries|tried|trying) again": "retry",
    # Plain words that hide what happens.
    r"(go|goes|going|went|gone) on": "continue or resume; an active run, not one that goes on",
    r"(cut|cuts|cutting) off": "abort or interrupt",
    r"(break|breaks|broke|broken|breaking) off": "abort",
    r"(set|sets|put|puts) (aside|away)": "quarantine (a run), evict (a value)",
    r"let go": "release",
    r"(take|takes|taken|took) in": "accept or receive",
    r"for (good|ever)": "permanently, forever",
    r"told": "report, say or send",
    r"anew": "again, new, or re- with the verb",
    r"whoever": "the component or the caller",
    r"mistakes?": "error",
    r"beware": "warning",
}
"""What is not said, and the word that is; see the glossary of docs/concepts.md."""

_UNSAID = re.compile("|".join(rf"\b(?:{each})\b" for each in INSTEAD), re.IGNORECASE)
_QUOTED = re.compile(r"^```.*?^```|<!-- bench.*?: end -->|`[^`\n]*`", re.MULTILINE | re.DOTALL)
"""Code, and tables that the bench writes."""


def unsaid(text: str) -> list[str]:
    """Each of these words in the text, with what stands around it."""
    prose = _QUOTED.sub("``", text)
    return [prose[max(0, found.start() - 40) : found.end() + 20] for found in _UNSAID.finditer(prose)]


@each_page
def test_a_page_says_what_is_meant(page: Path) -> None:
    # The words of a contract are those that third parties rely on.
    if DOCS / "spec" not in page.parents:
        assert unsaid(page.read_text("utf-8")) == [], INSTEAD


def test_the_reference_is_what_the_code_says() -> None:
    page = runpy.run_path(str(DOCS / "make_reference.py"))["page"]()
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == page, "run `make reference`"


def test_the_values_of_the_reference_are_sent_as_it_says() -> None:
    day, moment = date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)
    given = {"day": day, "at": moment, "n": Decimal("1.50"), "b": b"hi", "t": (1,), "nan": float("nan")}
    body = run_requests.execution(FlowAddress("a", "p", "s"), parameters=given).call().body
    assert json.loads(body or b"")["parameters"] == {
        "day": "2026-01-02",
        "at": "2026-01-02T00:00:00Z",
        "n": "1.50",
        "b": "aGk=",
        "t": [1],
        "nan": None,
    }


def test_the_demo_s_trace_is_the_one_in_the_docs() -> None:
    """Rows, marks, iterations, attempts, errors, tokens and cost; times are the machine's."""
    shown = runpy.run_path(str(DOCS / "make_demo_trace.py"))["trace_of_demo"]()
    written = (DOCS / "demo-trace.md").read_text(encoding="utf-8")
    assert rows(shown) == rows(written), "run `make reference`"
    assert len(rows(shown)) > 20


def rows(text: str) -> list[list[str]]:
    tree = text[text.index("\nstep ") : text.index("\n(")]
    # Between the first and the last iteration the slowest is shown, on a busy machine any of them.
    tree = re.sub(r"⋮.*?(?=\n *✓ \[18\])", "⋮", tree, flags=re.DOTALL)
    # What is left are labels and sums, without bars, and without when something began and how long it took.
    return [re.sub(r"[━╸╺─╴╶·]+|\d+(\.\d+)? m?s", "", line).split() for line in tree.splitlines()[2:]]


@each_page
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    for target, anchor in MENTION.findall(page.read_text(encoding="utf-8")):
        other = page.parent / target if target else page
        assert other.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in [
                re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles
            ]


def test_the_diffs_of_the_recipes_are_of_the_code_as_it_is() -> None:
    diffs = re.findall(r"^```diff\n(.*?)^```", (DOCS / "recipes.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(diffs) == 7
    for name, body in re.findall(r"^# (\S+)\n((?:(?!# ).*\n)*)", "".join(diffs), re.M):
        before = [line[1:] for line in body.splitlines() if line[0] in " -"]
        if before:
            lines = set((ROOT / name).read_text(encoding="utf-8").splitlines())
            assert [line for line in before if line not in lines] == [], name


def test_the_page_of_stores_has_every_snippet_of_the_dialect_and_every_function_of_the_database() -> None:
    page = (DOCS / "stores.md").read_text(encoding="utf-8")
    schema = (PACKAGE / "store" / "postgres" / "sql").glob("*.sql")
    functions = {
        name
        for file in schema
        for name in re.findall(r"CREATE FUNCTION (\w+)\(", file.read_text(encoding="utf-8"))
    }
    assert len(functions) > 10
    assert {each for each in (*Dialect._fields, *functions) if f"`{each}`" not in page} == set()


@pytest.mark.parametrize("kind", get_args(Step), ids=lambda kind: kind.__struct_config__.tag)
def test_the_page_of_flow_files_has_every_kind_of_step_and_its_fields(kind: type[Step]) -> None:
    page = (DOCS / "flow-file.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(\w+)`|\b(\w+):", page))
    words = {word for pair in told for word in pair}
    assert {kind.__struct_config__.tag, *kind.__struct_encode_fields__} - words == set()


def test_the_page_for_contributors_has_every_target_of_make() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(targets) > 8
    assert [each for each in targets if f"make {each}" not in page and each != "help"] == []


def test_the_wire_contract_names_every_code_and_every_event_type() -> None:
    contract = (DOCS / "spec" / "wire.md").read_text(encoding="utf-8")
    assert [each for each in (*CODES, *EVENT_TYPES) if not re.search(rf"\b{each}\b", contract)] == []


@each_page
def test_each_command_of_a_page_has_the_words_and_options_that_it_is_shown_with(page: Path) -> None:
    shown = [
        command for block in BLOCK.findall(page.read_text("utf-8")) for command in COMMAND.findall(block)
    ]
    assert shown or page.stem != "quickstart"
    for line in shown:
        words = shlex.split(line, comments=True)
        command: click.Command = app
        context = click.Context(app)
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found is not None, line
            command = found
        options = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
        ended = words.index("--") if "--" in words else len(words)
        given = [word.partition("=")[0] for word in words[:ended] if word.startswith("-")]
        assert {*given} <= options | {"--help", "-"}, line


def test_the_page_of_concepts_has_every_action_of_the_audit_log() -> None:
    store = "".join(path.read_text("utf-8") for path in (PACKAGE / "store").rglob("*.py"))
    noted = re.findall(r'(?:\b(?:note_change|change_project)\([^"]*|action=)"([a-z]+\.[a-z_]+)"', store)
    assert len({*noted}) > 10
    page = (DOCS / "concepts.md").read_text("utf-8")
    assert {action for action in noted if f"`{action}`" not in page} == set()


def purpose_of(room: Path) -> str:
    """The two sentences with which a folder's docstring begins."""
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    said = re.match(r"(?:(?!\. ).)+\. Knows .+?\.(?= |$)", " ".join((docstring or "").split()))
    assert said, (
        "a folder says in one sentence what it is for, and in the next what it does not know: `Knows …`"
    )
    return said.group()


def test_the_page_on_the_architecture_has_the_rooms_that_there_are_in_the_words_of_their_docstrings() -> None:
    assert re.findall(r"^\| `([a-z_/]+)/` \| (.*) \|$", ARCHITECTURE, re.M) == [
        (str(room.relative_to(PACKAGE)), purpose_of(room)) for room in ROOMS
    ]


def test_every_name_on_the_page_on_the_architecture_is_in_the_code() -> None:
    names = NAME.findall(ARCHITECTURE)
    assert len(names) > 60
    for module, name in names:
        attrgetter(name)(importlib.import_module(f"runglass.{module}"))


def test_every_module_that_begins_a_task_thread_or_process_is_on_the_page_on_the_architecture() -> None:
    owners = ARCHITECTURE.partition("## Who owns what is active")[2].partition("\n## ")[0]
    named = {module for module, _ in NAME.findall(owners)}
    beginning = {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        for file in OF_A_SERVER
        if STARTER.search(file.read_text(encoding="utf-8"))
    }
    assert beginning - {"testing"} <= named


EXAMPLES = ROOT / "examples"
SAYS = {
    "tool_conversation.py": [
        "the model reads page 1",
        "the model reads page 2",
        "the model reads page 3",
        "answer: When did the ferry come?",
        "answer: Who looked up?",
        "the first run waited 3 times for tools",
    ],
    "edit_a_step.py": [
        "0 draft: {'text': 'A draft that is much too long'}",
        "  replaced by: Short",
        "1 count: {'text': 'Short', 'words': 1}",
        "2 report: {'report': '1 words: Short'}",
        "the run has completed",
    ],
}


server = server_with()


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_says_what_it_promises(variables: dict[str, str], name: str) -> None:
    assert said_by(EXAMPLES / name, env=variables).splitlines() == SAYS[name]

"""`demo` from a newcomer's side: it runs, shows what it promises, and its last words work."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from runglass.cli.demo.command import read_text
from runglass.cli.exit_codes import Exit, UsageError
from tests.e2e.command import runglass, started
from tests.e2e.conftest import Printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> CompletedProcess[str]:
    return runglass("demo", cwd=folder)


@pytest.fixture
def connected(
    demo: CompletedProcess[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The demo's last words start a server, which commands from another folder ask as these say."""
    (serve,) = re.findall(r"^  runglass (serve .*)$", demo.stdout, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    # Lines of a pipe are whole, unless the environment names a width.
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("RUNGLASS_API_KEY", re.findall(r"  export .*RUNGLASS_API_KEY=(\S+)", demo.stdout)[0])
    with started(*shlex.split(serve), "--port", "0", cwd=folder) as server:
        monkeypatch.setenv("RUNGLASS_BASE_URL", server.line().removeprefix("ready "))
        yield


def test_the_demo_shows_a_retry_a_skipped_step_and_every_step(demo: CompletedProcess[str]) -> None:
    assert demo.returncode == Exit.OK, demo.stderr
    assert demo.stderr == "created project demo/stories\n"
    assert re.search(r"measure \[0\] .*attempt 1 failed, next in 200 ms", demo.stdout)
    assert re.search(r"leave_as_it_is .*skipped: condition 'is_long' was true", demo.stdout)
    assert re.search(r"each_paragraph .*loop completed, 19 iterations", demo.stdout)
    assert '"paragraphs": 19' in demo.stdout
    assert "overridden" not in demo.stdout


def test_the_demo_leaves_runs_of_every_kind(demo: CompletedProcess[str]) -> None:
    table = demo.stdout[demo.stdout.index("And runs of other kinds") :]
    found = re.findall(r"^[0-9a-f-]{36} +\S (\w+) +(\S+) v1 ", table, re.MULTILINE)
    kinds = [(flow, status) for status, flow in found]
    assert sorted(kinds) == [
        ("add-up-orders", "completed"),
        ("add-up-orders", "failed"),
        ("answer-with-tools", "paused"),
        ("ask-a-flaky-source", "completed"),
        ("search-a-grid", "completed"),
        ("wait-for-a-person", "cancelled"),
    ]
    assert "CODE_ERROR in step price: " in table
    assert "(2 retried)" in table


@pytest.mark.usefixtures("connected")
def test_the_last_words_of_the_demo_work(demo: CompletedProcess[str], printed: Printed) -> None:
    looks = [shlex.split(line)[1:] for line in re.findall(r"^  runglass run.*$", demo.stdout, re.MULTILINE)]
    assert [look[1] for look in looks] == ["list", "show", "step", "step", "tail", "demo/stories/read-a-text"]
    for look in looks:
        assert printed(*look).out


@pytest.mark.usefixtures("connected")
def test_the_page_on_failed_runs_shows_what_its_commands_print(
    demo: CompletedProcess[str], printed: Printed
) -> None:
    """Line by line but for numbers and durations; three dots stand for what the page leaves out."""
    page = (Path(__file__).parents[2] / "docs" / "debug-a-failed-run.md").read_text("utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    dialogues = [each.splitlines() for block in blocks for each in block.split("$ runglass ")[1:]]
    runs = re.findall(r"^([0-9a-f-]{36}) +\S (\w+) +(\S+) v1 ", demo.stdout, re.MULTILINE)
    ids = {(status, flow): run_id for run_id, status, flow in runs}
    named = {
        "FAILED": ids["failed", "add-up-orders"],
        "GOOD": ids["completed", "add-up-orders"],
        "WAITING": ids["paused", "answer-with-tools"],
    }
    for line, *shown in dialogues:
        words = [named.get(word, word) for word in shlex.split(line)]
        if words[0] in ("demo", "serve"):
            continue
        told = _blurred(printed(*words, code=Exit.FAILED if words[1] == "diff" else Exit.OK).out)
        for part in (part for each in shown for part in each.split("…")):
            assert _blurred(part) in told, line
    assert len(dialogues) > 12


def _blurred(text: str) -> str:
    return " ".join(re.sub(r"\d[\d.,]*( ms| s)?", "#", text).split())


def test_a_short_text_of_ones_own_takes_the_other_branch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    monkeypatch.chdir(tmp_path)
    # Settings of another server in the environment keep it from nothing.
    monkeypatch.setenv("RUNGLASS_STORE", "postgresql://nobody@127.0.0.1:9/none")
    monkeypatch.setenv("RUNGLASS_BUS", "postgresql://nobody@127.0.0.1:9/none")
    monkeypatch.setenv("RUNGLASS_EXECUTES_RUNS", "false")
    (tmp_path / "short.txt").write_bytes("\ufeffEin Satz.\r\n\r\nNoch einer.\r\n".encode())
    output = printed("demo", "--file", "short.txt", "--data", "kept").out
    assert '"paragraphs": 2' in output
    assert re.search(r"shorten .*skipped: condition 'is_long' was false", output)
    assert (tmp_path / "kept" / "runglass.db").exists()


def test_of_a_huge_file_only_the_first_bytes_are_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(100_000_000_000)
    with pytest.raises(UsageError, match="too large"):
        read_text(tmp_path / "huge.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n\n", "there is no plain text in"),
        (b"\x7fELF\0\0", "there is no plain text in"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_a_sentence(
    content: bytes | None, message: str, tmp_path: Path, printed: Printed
) -> None:
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    assert message in printed("demo", "--file", str(file), code=Exit.USAGE).err

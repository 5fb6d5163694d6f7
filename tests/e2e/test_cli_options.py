"""What the command makes of options, arguments and Ctrl-C, and what it says of itself: help, completion."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runglass.cli import main
from runglass.cli.app import HELP_WIDTH, app
from runglass.cli.exit_codes import Exit
from tests.e2e.command import runglass
from tests.e2e.test_docs import unsaid


def commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from commands(each, *path, name)


@pytest.mark.parametrize(
    ("path", "command"),
    list(commands(app)),
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_help_says_what_a_command_does_and_what_each_option_means(
    path: tuple[str, ...],
    command: click.Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main([*path, "--help"]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(['runglass', *path])} ")
    assert lines[2].startswith("  "), "what it does stands below the usage"
    assert max(map(len, lines)) <= HELP_WIDTH
    assert unsaid(" ".join(map(str.strip, lines))) == []
    assert [each.name for each in command.params if not getattr(each, "help", None)] == []


def completed(words: str) -> set[str]:
    """What Tab offers for the last of the words, without the shell."""
    environment = {
        "_RUNGLASS_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = runglass(env=environment)
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_tab_completes_commands_options_and_their_values() -> None:
    assert completed("runglass ru") == {"run", "runs"}
    assert completed("runglass runs list --s") == {"--since", "--status", "--store"}
    assert completed("runglass serve --synchronous N") == {"NORMAL"}
    # A project that is not one yet is no mistake while it is typed.
    assert completed("runglass keys create acme --ro") == {"--role"}


WRAPPED = """
import _signal, sys
# A shell starts its background jobs with the signal ignored, and the tests may be such a job.
_signal.signal(_signal.SIGINT, _signal.default_int_handler)
{0}
from runglass.cli import main
{1}
sys.exit(main())
"""
"""What the installed script does, with what comes before it and before `main`."""
COUNTED = """
left = {0}


def count(*_):
    global left
    left -= 1
    if left == 0:
        sys.setprofile(None)
        _signal.raise_signal(_signal.SIGINT)


sys.setprofile(count)
"""
"""Raises the signal at so manieth a call or return of a function."""


def interrupted(*arguments: str, cwd: Path, before: str = "", moment: str = "") -> tuple[int, str]:
    """Exit code and stderr of a command that interrupts itself."""
    ended = runglass(*arguments, cwd=cwd, program=WRAPPED.format(before, moment))
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("calls", [100, 10_000, 150_000, 500_000])
@pytest.mark.parametrize(
    "arguments",
    [["serve", "--port", "0"], ["flow", "check", "a.yaml"], ["runs", "list", "--api-key", "nk_x"]],
)
def test_an_interrupt_at_any_moment_shows_no_traceback(
    tmp_path: Path, arguments: list[str], calls: int
) -> None:
    (tmp_path / "a.yaml").write_text("slug: a\nsteps: [{id: a, type: passthrough}]\n")
    code, said = interrupted(*arguments, cwd=tmp_path, moment=COUNTED.format(calls))
    assert "Traceback" not in said
    assert code == Exit.INTERRUPTED, said


def test_an_interrupt_while_the_thread_of_a_server_begins_ends_the_command(tmp_path: Path) -> None:
    # In the thread that starts it, which waits for it to be there.
    prelude = (
        "from concurrent.futures import Future\n"
        "result = Future.result\n"
        "def interrupted(future, timeout=None):\n"
        "    if sys._getframe(1).f_code.co_name == 'start_blocking_portal':\n"
        "        _signal.raise_signal(_signal.SIGINT)\n"
        "    return result(future, timeout)\n"
        "Future.result = interrupted\n"
    )
    code, said = interrupted("watch", "--data", "here", "--", "true", cwd=tmp_path, before=prelude)
    assert (code, "Traceback" in said) == (Exit.INTERRUPTED, False)


def test_an_interrupt_in_the_import_of_the_commands_ends_the_process(tmp_path: Path) -> None:
    # The moment is met for certain: whatever is imported behind `main` raises the signal.
    prelude = (
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click':\n"
        "            import signal; signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    ended = interrupted("--version", cwd=tmp_path, before=prelude)
    assert ended == (Exit.INTERRUPTED, "")


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["runglass", "--version"])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert main() == Exit.OK
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_caller_s_own_handler_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert main(["--version"]) == Exit.OK
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().out.startswith("runglass ")

"""What the command makes of options and arguments, and what it says of itself: help and completion."""

from collections.abc import Iterator

import click
import pytest

from runglass.cli import main
from runglass.cli.app import HELP_WIDTH, app
from runglass.cli.exit_codes import Exit
from tests.e2e.command import runglass

NOWHERE = "http://127.0.0.1:1"


def paths(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command and group by the words that call it."""
    yield path
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from paths(each, *path, name)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--port", "65536"], "'--port': 65536 is not in the range 0<=x<=65535"),
        (["serve", "--port", "x"], "'--port': 'x' is not a valid whole number"),
        (["serve", "--synchronous", "full"], "'full' is not one of 'FULL', 'NORMAL'"),
        (["serve", "--dat", "x"], "No such option '--dat'. Did you mean '--data'?"),
        (["tail", "last"], "No such command 'tail'. Did you mean 'runglass runs tail'?"),
        (["runs", "list", "--limit", "0"], "'--limit': 0 is not in the range x>=1"),
        (["runs", "show"], "Missing argument 'RUN_ID'"),
        (["flow", "push", "a.yaml"], "Missing option '--to'"),
        (["flow", "rollback", "a/b/c", "0"], "'VERSION': 0 is not in the range x>=1"),
        (
            ["keys", "create", "a/b", "--role", "king"],
            "'king' is not one of 'admin', 'run', 'read', 'record'",
        ),
        (["keys", "revoke", "a/b", "x"], "'ID': 'x' is not a valid whole number"),
        (["run", "a/b/c", "-m"], "Option '-m' requires an argument"),
        (["run", "a/b/c", "--timeout", "nan"], "'nan' is no time to wait: write seconds, 0.001 or more"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_option(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == Exit.USAGE
    output = capsys.readouterr()
    assert output.out == ""
    assert told in output.err


def test_a_query_that_was_taken_for_options_is_told_how_it_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in (["runs", "list"], ["runs", "delete"]):
        assert main([*command, "-status:completed since:2h"]) == Exit.USAGE
        assert "put -- before it: -- '-status:completed since:2h'" in capsys.readouterr().err
    assert main(["runs", "list", "--stat", "failed"]) == Exit.USAGE
    assert "put --" not in capsys.readouterr().err


@pytest.mark.parametrize("path", list(paths(app)), ids=" ".join)
def test_help_says_what_a_command_does_and_what_each_option_means(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main([*path, "--help"]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(['runglass', *path])} ")
    assert lines[2].startswith("  "), "what it does stands below the usage"
    assert max(map(len, lines)) <= HELP_WIDTH
    command: click.Command = app
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
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
    assert completed("runglass runs list --s") == {"--status", "--since", "--store"}
    assert completed("runglass runs list --status c") == {"completed", "cancelled"}
    # A project that is not one yet is no mistake while it is typed.
    assert completed("runglass keys create acme --ro") == {"--role"}


def test_a_server_that_is_not_named_and_not_there_is_told_how_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hint = "RUNGLASS_BASE_URL or --base-url says where the server is"
    monkeypatch.setenv("RUNGLASS_API_KEY", "nk_live_x")
    monkeypatch.delenv("RUNGLASS_BASE_URL", raising=False)
    # Something may listen on the usual port of this machine: by way of a proxy nobody does.
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    assert main(["runs", "list"]) == Exit.UNREACHABLE
    assert hint in capsys.readouterr().err
    assert main(["runs", "list", "--base-url", NOWHERE]) == Exit.UNREACHABLE
    assert hint not in capsys.readouterr().err

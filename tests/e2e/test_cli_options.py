"""What the command makes of options and arguments, and what it says of itself: help and completion."""

from collections.abc import Iterator

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


def test_a_command_takes_a_server_or_a_folder_and_what_is_for_the_owner_of_the_store_a_folder_alone() -> None:
    takes = {
        path: {each.name for each in command.params} & {"base_url", "data"}
        for path, command in commands(app)
        if path[:1] not in [("serve",), ("demo",)]
    }
    assert {path[0] for path, names in takes.items() if names == {"data"}} == {
        *("keys", "projects", "audit", "processes", "data", "migrate")
    }
    of_a_server = {path[0] for path, names in takes.items() if "base_url" in names}
    assert of_a_server == {"run", "runs", "flow", "open", "watch", "doctor"}
    assert {"base_url"} not in takes.values()


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

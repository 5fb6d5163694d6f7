"""Writes `reference.md` from the code: every setting, command, exit code, event and error code.

Run `make reference` after a change; a test fails while the page does not match the code.
"""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import typer.main

from runglass.cli.app import app
from runglass.cli.exits import MEANINGS
from runglass.errors import CODES, STEP_CODES, exception_for
from runglass.events import KnownEvent
from runglass.settings import CLIENT_VARIABLES, PREFIX, Settings

PAGE = Path(__file__).with_name("reference.md")


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        "# Reference\n\nThis page is written by `make reference` from the code; a test holds it to it.",
        "## Settings\n\nA setting is a flag of `runglass serve` (where the list of commands shows one), an"
        " environment variable, or a key in `runglass.toml` in the current folder; the first of these wins."
        " Lists and tables are given as JSON in a variable.",
        table(["setting", "variable", "default", "meaning"], settings()),
        "Beside these, clients and terminal commands read:",
        table(["variable", "meaning"], [(f"`{name}`", text) for name, text in CLIENT_VARIABLES.items()]),
        "## Commands\n\n`runglass COMMAND --help` says more about each.",
        table(["command", "what it does", "options"], commands()),
        "## Exit codes",
        table(["code", "meaning"], [(f"{int(code)}", text) for code, text in MEANINGS.items()]),
        "## Events\n\nEach has `executionId`, `seq` and `at` as well.",
        table(["event", "class", "meaning", "fields"], events()),
        "## Error codes of answers",
        table(["code", "status", "exception", "meaning"], codes()),
        "## Error codes of step attempts and runs\n\nThey stand as `code` in the error of an attempt"
        " (`error_context`) and of a failed run.",
        table(["code", "meaning"], [(f"`{code}`", text) for code, text in STEP_CODES.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def settings() -> list[tuple[str, str, str, str]]:
    defaults = Settings()
    hints = get_type_hints(Settings, include_extras=True)
    rows = []
    for name in Settings.__struct_fields__:
        meta = next(extra for extra in hints[name].__metadata__ if isinstance(extra, msgspec.Meta))
        default = getattr(defaults, name)
        shown = "–" if default is None or default in ([], {}) else f"`{default}`"
        rows.append((f"`{name}`", f"`{PREFIX}{name.upper()}`", shown, meta.description or ""))
    return rows


def commands() -> list[tuple[str, str, str]]:
    return list(_commands(typer.main.get_command(app), "runglass"))


def _commands(command: Any, path: str) -> Iterator[tuple[str, str, str]]:
    inner = getattr(command, "commands", None)
    if inner is not None:
        for name in sorted(inner):
            yield from _commands(inner[name], f"{path} {name}")
        return
    words = [path]
    options = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            words.append(parameter.metavar or parameter.name.upper())
        else:
            options.append(f"`{max(parameter.opts, key=len)}`")
    summary = inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")
    yield f"`{' '.join(words)}`", summary, " ".join(options)


def events() -> list[tuple[str, str, str, str]]:
    rows = []
    for kind in get_args(KnownEvent):
        common = {"execution_id", "seq", "at"}
        fields = [
            f"`{wire}`"
            for name, wire in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
            if name not in common
        ]
        meaning = inspect.cleandoc(kind.__doc__ or "").replace("\n", " ")
        rows.append((f"`{kind.__struct_config__.tag}`", f"`{kind.__name__}`", meaning, " ".join(fields)))
    return rows


def codes() -> list[tuple[str, str, str, str]]:
    return [
        (f"`{code}`", str(row.status), f"`{exception_for(row.status).__name__}`", row.meaning)
        for code, row in CODES.items()
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""What the start of a command or of the server must not load again, and that values mean what Typer means."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.main import get_command

from runglass.cli.typer_fast_path import take_plainly

START = """
import asyncio, gc, sys
from pathlib import Path
from runglass.cli import main

folder = Path(sys.argv[1])
code = main(["serve", "--port", "0", "--data", str(folder), "--flows", str(folder / "missing")])
from runglass.composition import open_runtime
from runglass.server import create_app
from runglass.settings import Settings

async def build():
    async with open_runtime(Settings(data=folder)) as runtime:
        create_app(runtime)

asyncio.run(build())
heavy = {"pydantic", "pydantic_ai", "openai", "httpx2", "genai_prices", "pydantic_monty", "ruamel.yaml"}
print(code, gc.isenabled(), gc.get_freeze_count() > 10_000, sorted(heavy & sys.modules.keys()))
"""


def test_the_server_starts_without_the_libraries_that_only_a_request_or_a_client_needs(
    tmp_path: Path,
) -> None:
    """The command ends with code 2, because its folder of flows is missing: after all that it imports."""
    command = [sys.executable, "-c", START, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "2 True True []\n", (
        "neither a heavy library, nor loaded objects left to the collector"
    )


def command_with_every_type(taken: list[Any]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def take(
        files: Annotated[list[Path], typer.Argument()],
        text: Annotated[str, typer.Option()] = "a",
        port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
        limit: Annotated[int, typer.Option(min=1)] = 20,
        seconds: Annotated[float | None, typer.Option(min=0.001)] = None,
        data: Annotated[Path | None, typer.Option()] = None,
        checked: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
        level: Annotated[Literal["FULL", "NORMAL"] | None, typer.Option()] = None,
        param: Annotated[list[str] | None, typer.Option("--param", "-p")] = None,
        flag: Annotated[bool, typer.Option("--flag")] = False,
    ) -> None:
        taken.append((files, text, port, limit, seconds, data, checked, level, param, flag))

    return app


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a"],
        ["a", "./b", "--text", "", "--port", "0", "--limit", "1", "--seconds", "2", "--flag"],
        [
            "a",
            "--port",
            "65535",
            "--seconds",
            "0.5",
            "--data",
            "x/../y",
            "--level",
            "FULL",
            "-p",
            "a=1",
            "-p",
            "",
        ],
        ["a", "--port", "65536"],
        ["a", "--port", "-1"],
        ["a", "--port", "1_0"],
        ["a", "--port", "1.0"],
        ["a", "--port", " 7"],
        ["a", "--port", "٣"],
        ["a", "--limit", "0"],
        ["a", "--limit", "x"],
        ["a", "--seconds", "1e3"],
        ["a", "--seconds", "nan"],
        ["a", "--seconds", "0"],
        ["a", "--level", "full"],
        ["a", "--checked", "no such file"],
        ["a", "--checked", "."],
        ["a", "--unknown"],
    ],
)
def test_a_value_that_is_taken_plainly_is_what_typer_makes_of_it(arguments: list[str]) -> None:
    def outcome(*, plainly: bool) -> object:
        taken: list[Any] = []
        command = get_command(command_with_every_type(taken))
        try:
            (take_plainly(command) if plainly else command)(arguments, standalone_mode=False)
        except typer._click.exceptions.ClickException as error:
            return type(error), str(error)
        return repr(taken)

    assert outcome(plainly=True) == outcome(plainly=False)

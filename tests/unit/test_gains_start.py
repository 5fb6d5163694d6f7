"""What the start of a command or of the server must not load again."""

import subprocess
import sys
from pathlib import Path

START = """
import asyncio, gc, sys
from pathlib import Path
from runglass.cli import main

folder = Path(sys.argv[1])
code = main(["serve", "--port", "0", "--data", str(folder), "--flows", str(folder / "missing")])
from runglass.runtime.composition import open_runtime
from runglass.server import create_app
from runglass.config.settings import Settings

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

"""What starting a program, a client or the server must not load: never how long it takes."""

import ssl
import subprocess
import sys
from pathlib import Path

from runglass.client.transport import verification

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


def loaded(code: str, *packages: str) -> set[str]:
    """Which of the packages a fresh interpreter has loaded after this code."""
    code = f"{code}; import sys; print(*({set(packages)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_no_library_of_a_provider_is_loaded_before_it_is_needed() -> None:
    assert loaded("import runglass.engine.models.gateway", "pydantic_ai", "openai") == set()


def test_names_are_imported_without_http_and_the_blocking_client_is_made_without_asyncio() -> None:
    libraries = ("httpx2", "httpcore2", "h11", "anyio", "ssl", "asyncio")
    assert loaded("import runglass", "msgspec", "typing", *libraries) == set()
    code = "from runglass import Client, Trace"
    assert loaded(code, *libraries) == set()
    code += "; client = Client('nk_x', base_url='http://127.0.0.1:9'); client.run('r'); client.flow('a/b/c')"
    theirs = {"asyncio", "runglass.client.aio.client", "runglass.client.transport.on_asyncio"}
    assert loaded(code, "httpx2", *theirs) == {"httpx2"}


def test_a_command_on_a_data_folder_waits_for_no_http_library(tmp_path: Path) -> None:
    at = f"'--data', {str(tmp_path)!r}"
    code = f"from runglass.cli import main; main(['projects', 'create', 'a/b', {at}]); "
    code += f"main(['runs', 'show', 'last', {at}])"
    assert loaded(code, "httpx2", "starlette") == {"starlette"}, "the server is there"


def test_an_asyncio_client_has_nothing_left_to_load_on_the_loop() -> None:
    code = (
        "from runglass import AsyncClient; import sys; before = set(sys.modules)\n"
        "client = AsyncClient('nk_x', base_url='http://127.0.0.1:9'); client.run('r'); client.flow('a/b/c')\n"
        "late = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert not late & {'runglass', 'httpx2', 'httpcore2', 'h11', 'asyncio'}, late"
    )
    assert loaded(code, "httpx2") == {"httpx2"}


def test_a_plain_address_reads_no_certificates() -> None:
    context = verification("http://localhost:8080/api/v1")
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED, "it trusts nobody rather than everybody"
    assert context.cert_store_stats()["x509"] == 0
    assert verification("https://host/api/v1") is True

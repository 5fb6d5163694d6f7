"""What starting a program, a client or the server must not load: never how long it takes."""

import re
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runglass import Client, Run
from runglass.client.core.connection import PLAIN, ServerConnection
from runglass.client.transport import blocking, checked, verification
from runglass.client.transport.blocking import SyncTransport

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


MAKE = "from runglass import Client; client = Client('nk_x', base_url='http://127.0.0.1:9/api/v1')"


def loaded(code: str, *packages: str) -> set[str]:
    """Which of the packages a fresh interpreter has loaded after this code."""
    code = f"{code}; import sys; print(*({set(packages)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_no_library_of_a_provider_is_loaded_before_it_is_needed() -> None:
    assert loaded("import runglass.engine.models.gateway", "pydantic_ai", "openai") == set()


def test_an_unused_client_loads_neither_http_nor_asyncio() -> None:
    code = f"{MAKE}; client.close(); repr(client)"
    assert loaded(code, "httpx2", "httpcore2", "h11", "anyio", "ssl", "asyncio") == set()


def test_a_blocking_client_never_loads_what_needs_asyncio() -> None:
    code = f"{MAKE}; client.run('r'); client.flow('a/b/c')"
    theirs = {"asyncio", "runglass.client.aio.client", "runglass.client.transport.on_asyncio"}
    assert loaded(code, "httpx2", *theirs) == {"httpx2"}


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


@settings(max_examples=50, deadline=None)
@given(st.from_regex(PLAIN, fullmatch=True))
def test_plain_urls_are_valid_to_the_library(url: str) -> None:
    assert checked(url[:1000])


def test_a_client_closed_before_it_was_used_is_closed() -> None:
    client = Client("nk_x", base_url="http://127.0.0.1:9")
    client.close()
    with pytest.raises(RuntimeError, match=re.escape("the client has been closed")):
        client.run("r").trace()


def test_threads_that_begin_at_once_share_one_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("nk_x", base_url="http://127.0.0.1:9")
    made: list[ServerConnection] = []
    found: list[Run] = []
    together = threading.Barrier(8)

    class Counted(SyncTransport):
        def __init__(self, endpoint: ServerConnection) -> None:
            made.append(endpoint)
            super().__init__(endpoint)

    def begin() -> None:
        together.wait()
        found.append(client.run("r"))

    monkeypatch.setattr(blocking, "SyncTransport", Counted)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert len(found) == 8
    assert len(made) == 1

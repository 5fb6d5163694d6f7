"""What Runglass takes from others: packages, vendored files, and private parts beyond a documented interface.

Each extra has code that needs it; what is vendored is what it says, with its licences, and the viewer's types
are of its versions; of a private part a test names what a new version broke.
"""

import inspect
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import anthropic
import httpcore2
import httpx2
import openai
import pydantic_ai
import pytest
from pydantic_ai.models import StreamedResponse
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

from runglass.cli import main
from tools.vendor import FOLDER, PACKAGES, TEST_FOLDER, TEST_PACKAGES, problems

ROOT = Path(__file__).parents[2]


def test_an_extra_has_code_that_needs_it() -> None:
    imported = {
        name.partition(".")[0]
        for file in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"^\s*(?:import|from) ([\w.]+)", file.read_text("utf-8"), re.M)
    }
    modules = {
        "backports.zstd": "backports",
        "genai-prices": "genai_prices",
        "googleapis-common-protos": "google",
        "grpcio": "grpc",
        "nats-py": "nats",
        "opentelemetry-proto": "opentelemetry",
        "pydantic-ai-slim": "pydantic_ai",
        "ruamel.yaml": "ruamel",
    }
    # Those that are looked for by name, and done without where they are not.
    unseen = {"httptools", "uvloop"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra, requirements in project["optional-dependencies"].items():
        names = {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements} - unseen
        for name in names:
            assert modules.get(name, name.replace("-", "_")) in imported, (extra, name)


def test_on_windows_the_command_says_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["--version"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "Linux and macOS" in said.err
    assert "WSL" in said.err


def test_the_vendored_files_have_their_hashes() -> None:
    assert list(problems()) == []
    assert list(problems(TEST_FOLDER, TEST_PACKAGES)) == []


def test_each_package_comes_with_its_licence() -> None:
    for package in PACKAGES:
        (licence,) = (name for path, (name, _) in package.files.items() if path == "LICENSE")
        assert "Permission is hereby granted" in (text := (FOLDER / licence).read_text("utf-8")) or (
            "Apache License" in text
        )


LOCK = json.loads((ROOT / "tools/viewer_types/package-lock.json").read_text("utf-8"))["packages"]

WAY_AROUND = re.compile(r"@ts-(?:ignore|nocheck|expect-error)|\bany(?:\[\])?(?=[}>|,;)])")
"""`Json` is the one name of what may be anything."""


def test_the_types_are_of_the_versions_that_are_vendored() -> None:
    installed = {path.removeprefix("node_modules/"): package.get("version") for path, package in LOCK.items()}
    assert {package.name: installed.get(package.name) for package in PACKAGES} == {
        package.name: package.version for package in PACKAGES
    }


def test_each_package_has_a_hash_and_no_address() -> None:
    further = {path: package for path, package in LOCK.items() if path}
    assert [path for path, package in further.items() if not package["integrity"].startswith("sha512-")] == []
    assert [path for path, package in further.items() if "resolved" in package] == []


def test_no_module_goes_around_the_check() -> None:
    modules = [file for file in FOLDER.parent.rglob("*.js") if file.parent != FOLDER]
    found = [
        f"{file.name}:{number}: {line.strip()}"
        for file in [*modules, *(ROOT / "tests" / "viewer").glob("*.mjs")]
        for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1)
        if WAY_AROUND.search(line)
    ]
    assert found == []


def test_httpx2_lets_the_network_of_its_pools_be_replaced() -> None:
    """`client/transport/blocking.py` puts a backend that keeps deadlines in its place."""
    proxies = {"http://": httpx2.HTTPTransport(), "https://": httpx2.HTTPTransport()}
    with httpx2.Client(mounts=proxies) as client:
        told = f"httpx2 {httpx2.__version__}: "
        assert isinstance(client._transport, httpx2.HTTPTransport), told + "Client._transport"
        assert set(client._mounts.values()) == set(proxies.values()), told + "Client._mounts"
        for transport in (client._transport, *proxies.values()):
            backend = transport._pool._network_backend
            assert isinstance(backend, httpcore2.NetworkBackend), told + "ConnectionPool._network_backend"


def test_pydantic_ai_keeps_the_http_client_of_a_provider_where_it_is_looked_for() -> None:
    """`engine/models/provider_clients.py` hears of the requests there."""
    provider = OpenAICompatibleProvider("local", base_url="http://localhost", api_key="none")
    client = provider._own_http_client
    assert isinstance(client, httpx2.AsyncClient), f"pydantic-ai {pydantic_ai.__version__}"
    assert provider.client._client is client


def test_streams_of_openai_and_anthropic_iterate_over_a_part_that_can_be_replaced() -> None:
    """`recorder/wrapping.py` puts what watches the chunks there, and hears of the end from the body."""
    response = httpx2.Response(200, content=b"", request=httpx2.Request("POST", "http://localhost"))
    with openai.OpenAI(api_key="none") as client, anthropic.Anthropic(api_key="none") as other:
        streams: list[Any] = [
            openai.Stream(cast_to=object, response=response, client=client),
            anthropic.Stream(cast_to=object, response=response, client=other),
        ]
    for stream in streams:
        told = f"openai {openai.__version__}, anthropic {anthropic.__version__}: "
        stream._iterator = iter(["a chunk"])
        assert list(stream) == ["a chunk"], told + "Stream._iterator"
        assert callable(stream.response.stream.close), told + "Stream.response.stream"


def test_streams_of_pydantic_ai_take_usage_in_one_place() -> None:
    """`engine/models` lets the largest counts hold there."""
    told = f"pydantic-ai {pydantic_ai.__version__}: StreamedResponse"
    parameters = inspect.signature(StreamedResponse._add_usage).parameters
    assert [*parameters] == ["self", "usage", "reported", "cumulative"], told + "._add_usage"

"""The package's metadata agrees with its code."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from runglass.cli import main

ROOT = Path(__file__).parents[2]


def project() -> dict[str, Any]:
    about: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return about


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
    for extra, requirements in project()["optional-dependencies"].items():
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

"""What a table was measured on, without anything that tells whose machine it was."""

import os
import platform
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from bench.stage import PEERS

OURS = ("msgspec", "httpx2", "starlette", "uvicorn", "uvloop")
THEIRS = (
    "pydantic",
    "openai",
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "dbos",
    "arize-phoenix",
    "opentelemetry-sdk",
    "langfuse",
    "logfire",
    "mlflow-tracing",
)


def machine() -> dict[str, str]:
    """Processor, memory, how busy it is at this moment, and versions, each by its name."""
    return {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{_memory_gb():.0f} GB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in OURS},
    }


def peers() -> dict[str, str]:
    """Versions of the peers that are installed."""
    return dict(_installed())


def _installed() -> Iterator[tuple[str, str]]:
    for name in THEIRS:
        for found in PEERS.glob(f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info"):
            yield name, found.name.removesuffix(".dist-info").rpartition("-")[2]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)

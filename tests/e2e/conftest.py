"""Which end-to-end tests `make test` runs: those of what users do first, and of what must never break."""

from pathlib import Path

import pytest

QUICK = frozenset(
    {
        "test_architecture",
        "test_canary",
        "test_cli_demo",
        "test_cli_runs",
        "test_client",
        "test_docs",
        "test_examples",
        "test_laws",
        "test_live_trace",
        "test_reference_trace",
    }
)
"""The modules that are not slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all others in this folder slow."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem not in QUICK:
            item.add_marker(pytest.mark.slow)

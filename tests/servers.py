"""The server of a test module, as a fixture."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from runglass.runtime.runtime import FixedLimits
from runglass.testing import RunningServer, running_server

Scope = Literal["module", "function"]


def server_with(*flows: str, limits: FixedLimits | None = None, scope: Scope = "module", **how: Any) -> Any:
    """A fixture: a server with these flows, published, and the settings `how`.

    A module names it: `server = server_with(FLOW, capture="full")`.
    """

    @pytest.fixture(scope=scope)
    def server() -> Iterator[RunningServer]:
        with running_server(limits, **how) as running:
            for flow in flows:
                running.push(flow)
            yield running

    return server

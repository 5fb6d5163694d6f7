"""The programs under `examples/four_ways` trace one agent in four ways, with the same answer and totals."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runglass.testing import RunningServer, running_server
from tests.e2e.command import said_by
from tests.emitters.comparison import ANSWER
from tests.emitters.model_server import ModelServer, model_server
from tests.emitters.readback import Api

EXAMPLES = Path(__file__).parents[2] / "examples" / "four_ways"
FLOWS = {
    "decorators": "four-ways-decorators",
    "wrapped": "four-ways-wrapped",
    "otel": "four-ways-otel",
    "flow_file": "four-ways-flow",
}
"""The flow of each program."""
QUESTION = "Is it raining in Oslo or Lima? [tools] [fail-500]"


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with model_server() as running:
        yield running


@pytest.fixture(scope="module")
def server(models: ModelServer) -> Iterator[RunningServer]:
    with running_server(providers={"local": f"{models.url}/v1"}, provider_keys={"local": "none"}) as running:
        yield running


def run(name: str, server: RunningServer, models: ModelServer) -> str:
    environment = {
        "MODEL": "small",
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"{models.url}/v1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.address,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{server.key}",
        "OTEL_SERVICE_NAME": FLOWS["otel"],
        "RUNGLASS_API_KEY": server.key,
        "RUNGLASS_BASE_URL": server.base_url,
    }
    models.case = name
    # From 1 on: the usage of a call follows from its number.
    models.calls.clear()
    return said_by(EXAMPLES / f"{name}.py", QUESTION, env=environment).strip()


@pytest.mark.slow
def test_each_way_gives_the_answer_and_the_totals_of_the_model_servers_ledger(
    server: RunningServer, models: ModelServer
) -> None:
    api = Api(server.address, server.key)
    assert run("plain", server, models) == ANSWER
    ledger = [call.usage for call in models.calls if call.status == 200]
    assert [call.status for call in models.calls] == [500, 200, 200]
    totals: dict[str, Any] = {}
    for way, flow in FLOWS.items():
        assert run(way, server, models) == ANSWER
        (trace,) = api.traces(flow)
        told = trace["flowRun"]["totals"]
        totals[way] = (told["tokens"]["prompt"], told["tokens"]["completion"])
        assert any(step["status"] == "failed" or step["attempt"] > 1 for step in trace["steps"]), way
    expected = sum(usage.input for usage in ledger), sum(usage.output for usage in ledger)
    assert totals == dict.fromkeys(FLOWS, expected)


def test_every_program_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"plain", *FLOWS}

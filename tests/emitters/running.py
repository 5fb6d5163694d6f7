"""Runs a row in its environment, beside a model server and a collector, case by case."""

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.emitters.capture import Collector, Export
from tests.emitters.ledger import Call
from tests.emitters.model_server import model_server
from tests.emitters.table import Row
from tests.http_server import answering

HERE = Path(__file__).parent
LONGEST_S = 240.0


class Case(NamedTuple):
    """What a case asked of the model and what it sent. `refused` are answers that refuse something."""

    name: str
    calls: list[Call]
    exports: list[Export]
    refused: list[str]
    error: str | None


class Ran(NamedTuple):
    """What came of a row. `cannot` says which cases the library has not, and why."""

    versions: dict[str, str]
    cannot: dict[str, str]
    cases: list[Case]


class RowFailed(Exception):
    """The script of a row did not come to its end."""


def run_row(row: Row, environments: Path, *, target: str, key: str) -> Ran:
    """Runs all cases of a row; what it sends goes on to `target`. Raises RowFailed."""
    collected = Collector(row.name, target, {"Authorization": f"Bearer {key}"})
    versions: dict[str, str] = {}
    cannot: dict[str, str] = {}
    errors: dict[str, str | None] = {}
    with (
        model_server() as models,
        answering(collected.answer) as collector,
        TemporaryDirectory(prefix="emitter-") as folder,
    ):
        name, *words = row.script.split()
        script, environment = HERE / "rows" / name, environments.resolve() / row.environment
        command: list[str | Path] = [environment / "bin" / "python", script, *words]
        if script.suffix == ".mjs":
            # Modules are looked for beside the script, and nowhere else.
            command = ["node", shutil.copy(script, environment)]
        process = subprocess.Popen(
            command,
            # Some tell the commit of the folder that they are in.
            cwd=folder,
            env=_environment(row, models.url, collector),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # A script that stands still is ended; its output then ends, too.
        timer = threading.Timer(LONGEST_S, process.kill)
        timer.start()
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
        reader.start()
        assert process.stdout is not None
        assert process.stdin is not None
        with process:
            for line in process.stdout:
                if not line.startswith("@@"):
                    continue
                told = json.loads(line[2:])
                if "versions" in told:
                    versions, cannot = told["versions"], told["cannot"]
                    continue
                if "begin" in told:
                    models.case = collected.case = told["begin"]
                else:
                    errors[told["end"]] = told["error"]
                process.stdin.write("\n")
                process.stdin.flush()
        timer.cancel()
        reader.join()
        if process.returncode:
            raise RowFailed(f"exit code {process.returncode}\n{''.join(said[-30:])}")
        cases = [
            Case(
                name,
                [call for call in models.calls if call.case == name],
                collected.exports.get(name, []),
                collected.refused.get(name, []),
                error,
            )
            for name, error in errors.items()
        ]
        return Ran(versions, cannot, cases)


def _environment(row: Row, models: str, collected: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TMPDIR") if name in os.environ}
    return kept | {
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_BASE_URL": models,
        "GOOGLE_API_KEY": "none",
        "GOOGLE_GEMINI_BASE_URL": models,
        "LANGFUSE_BASE_URL": collected,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-none",
        "LANGFUSE_SECRET_KEY": "sk-lf-none",
        "LANGSMITH_API_KEY": "none",
        "LANGSMITH_ENDPOINT": collected,
        # LlamaIndex reads the older of the two names.
        "OPENAI_API_BASE": f"{models}/v1",
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"{models}/v1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collected,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_RESOURCE_ATTRIBUTES": "service.version=1.4,deployment.environment.name=test",
        "OTEL_SERVICE_NAME": f"emitter-{row.name}",
        "PYTHONUNBUFFERED": "1",
        "TRACELOOP_BASE_URL": collected,
        "TRACELOOP_TELEMETRY": "false",
        **row.switches,
    }

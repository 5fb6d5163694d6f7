"""What Phoenix and MLflow show of runs that Runglass sends on to them as spans.

`python -m bench.span_receivers --phoenix ENV --mlflow ENV [--runs 50]`: the environments have them installed.
Each is started on a free port with a folder of its own, and nothing leaves the machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from runglass.testing import running_server
from tests.contract.test_span_round_trip import spans_of
from tests.contract.wire import WORDS, execute, http_for
from tests.ports import free_port

START_S = 180.0
READ_MLFLOW = """
import json, sys
from mlflow import MlflowClient
found, token = [], None
while True:
    page = MlflowClient(sys.argv[1]).search_traces(experiment_ids=["0"], max_results=100, page_token=token)
    for trace in page:
        for span in trace.data.spans:
            row = [trace.info.trace_id, span.span_id, span.parent_id, span.name]
            tokens = (trace.info.token_usage or {}).get("total_tokens")
            found.append([*row, span.status.status_code.name, span.span_type, tokens])
    token = page.token
    if not token:
        break
json.dump(found, sys.stdout)
"""


def tell(line: str) -> None:
    """Prints a line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Shown(NamedTuple):
    """A span as a receiver shows it."""

    trace: str
    span: str
    parent: str | None
    name: str
    status: str
    kind: str


def shown_by_phoenix(url: str) -> list[Shown]:
    """All spans of the project that has those without a name of one."""
    found: list[Shown] = []
    cursor = None
    while True:
        query = {"limit": 1000, **({"cursor": cursor} if cursor else {})}
        page = httpx2.get(f"{url}/v1/projects/default/spans", params=query, timeout=60)
        page.raise_for_status()
        for span in page.json()["data"]:
            ids = span["context"]
            row = (ids["trace_id"], ids["span_id"], span["parent_id"] or None, span["name"])
            found.append(Shown(*row, span["status_code"], span["span_kind"]))
        cursor = page.json().get("next_cursor")
        if not cursor:
            return found


def shown_by_mlflow(url: str, python: Path) -> list[Shown]:
    """All spans of the first experiment."""
    done = subprocess.run([python, "-c", READ_MLFLOW, url], capture_output=True, check=True, timeout=300)
    rows = json.loads(done.stdout)
    tokens = {trace: tokens or 0 for trace, *_, tokens in rows}
    tell(f"mlflow: {sum(tokens.values()):,} tokens in {len(tokens):,} traces")
    return [Shown(*row[:6]) for row in rows]


@contextmanager
def started(command: list[str | Path], url: str, **environment: str) -> Iterator[None]:
    """The server, once it answers; it and what it has begun end with the block."""
    process = subprocess.Popen(
        [*map(str, command)],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until_s = time.monotonic() + START_S
        while True:
            try:
                httpx2.get(url, timeout=5)
                break
            except httpx2.RequestError:
                if process.poll() is not None or time.monotonic() > until_s:
                    raise
                time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def send(endpoint: str, headers: Mapping[str, str], runs: int) -> dict[str, dict[str, Any]]:
    """Executes runs that are sent on: their spans by id, as the files of the runs have them."""
    with running_server(otlp_endpoint=endpoint, otlp_headers=dict(headers), capture="full") as server:
        server.push(WORDS)
        server.call(server.runtime.store.span_cursors())
        with http_for(server, server.key) as http:
            run_ids = [execute(http, "words", message="a bb ccc") for _ in range(runs)]
            told = [http.get(f"/flow-runs/{run_id}").json()["totals"]["tokens"] for run_id in run_ids]
            tell(f"runglass: {sum(each['total'] for each in told):,} tokens in {runs:,} runs")
            spans = {span_id: span for run_id in run_ids for span_id, span in spans_of(http, run_id).items()}
            while server.call(server.runtime.store.span_cursors()):
                time.sleep(0.1)
    return spans


def compare(name: str, ours: dict[str, dict[str, Any]], shown: list[Shown]) -> bool:
    """Says what a receiver shows of what was sent; whether that is all of it, each once and in its place."""
    theirs = {each.span.removeprefix("0x"): each for each in shown}
    wrong_parents = sum(
        theirs[span_id].parent != span.get("parentSpanId")
        for span_id, span in ours.items()
        if span_id in theirs
    )
    wrong_names = sum(theirs[i].name != span["name"] for i, span in ours.items() if i in theirs)
    is_same = ours.keys() == theirs.keys() and len(shown) == len(theirs)
    tell(
        f"{name}: sent {len(ours):,} spans, shown {len(shown):,},"
        f" missing {len(ours.keys() - theirs.keys()):,},"
        f" with another parent {wrong_parents:,}, with another name {wrong_names:,};"
        f" statuses {dict(Counter(each.status for each in shown))},"
        f" kinds {dict(Counter(each.kind for each in shown))}"
    )
    return is_same and not wrong_parents and not wrong_names


def main() -> None:
    """Tries each receiver that there is an environment of."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--phoenix", type=Path)
    arguments.add_argument("--mlflow", type=Path)
    arguments.add_argument("--runs", type=int, default=50)
    given = arguments.parse_args()
    is_good = True
    if given.phoenix:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with tempfile.TemporaryDirectory() as folder:
            environment = {
                "PHOENIX_WORKING_DIR": folder,
                "PHOENIX_HOST": "127.0.0.1",
                "PHOENIX_PORT": str(port),
                "PHOENIX_GRPC_PORT": str(free_port()),
                "PHOENIX_TELEMETRY_ENABLED": "false",
            }
            with started([given.phoenix / "bin" / "phoenix", "serve"], f"{url}/v1/projects", **environment):
                sent = send(url, {}, given.runs)
                is_good &= compare("phoenix", sent, _all(sent, lambda: shown_by_phoenix(url)))
    if given.mlflow:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with tempfile.TemporaryDirectory() as folder:
            command = [
                *(given.mlflow / "bin" / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"),
                *("--default-artifact-root", folder),
            ]
            with started(command, f"{url}/health", MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true"):
                sent = send(url, {"x-mlflow-experiment-id": "0"}, given.runs)
                python = given.mlflow / "bin" / "python"
                is_good &= compare("mlflow", sent, _all(sent, lambda: shown_by_mlflow(url, python)))
    raise SystemExit(0 if is_good else 1)


def _all(sent: dict[str, Any], read: Any) -> list[Shown]:
    """What is shown once that is as much as was sent, or after a while: they store it later."""
    until_s = time.monotonic() + 60
    while len(shown := read()) < len(sent) and time.monotonic() < until_s:
        time.sleep(1)
    return list(shown)


if __name__ == "__main__":
    main()

"""`make contract`: requests made up from the OpenAPI document, against a real server.

Run as `python -m tests.contract.fuzz path/to/schemathesis`: the generator has an environment of its own, as
its dependencies are not ours. Streams are left out: they last as long as their run.
"""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from runglass.server.endpoints import ENDPOINTS
from runglass.testing import RunningServer, running_server
from tests.contract.wire import http_for

ROOT = Path(__file__).parents[2]
CASES_PER_OPERATION = 100
LONGEST_S = 900
FLOW = """
slug: fuzzed
steps:
  - {id: first, type: passthrough}
  - id: gate
    type: condition
    if: initial.get("hold") == "until cancelled"
    then: [{id: hold, type: wait, ms: 600000}]
"""
CHECKS = [
    "content_type_conformance",
    "ignored_auth",
    "response_headers_conformance",
    "response_schema_conformance",
    "status_code_conformance",
    "unsupported_method",
    "no_fault",
    "EachSucceeds",
]


def main(generator: str) -> int:
    """Runs the generator; its exit code is ours, and so is its report."""
    with running_server(capture="full", log_level="error") as server:
        names = prepare(server)
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "tests.contract.fuzz_hooks",
            "PYTHONPATH": str(ROOT),
            "FUZZ_NAMES": json.dumps(names),
        }
        command = [generator, "run", f"{server.address}/docs/openapi.json"]
        command += ["--header", f"Authorization: Bearer {server.key}"]
        command += ["--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"]
        # One worker: Python 3.11 counts the depth of its parser for all threads at once, and the generator
        # parses code in each of them.
        command += ["--max-examples", str(CASES_PER_OPERATION), "--workers", "1", "--seed", "2"]
        # A GET of "/" is the viewer's page, which is no part of the document; its POST is that of /v1/traces.
        command += ["--exclude-path-regex", "/(stream|step)$|^/$", "--warnings", "off", "--no-color"]
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=LONGEST_S, check=False)
    return done.returncode


def prepare(server: RunningServer) -> dict[str, str]:
    """Flows, runs and a key for the requests to hit; their names by path parameter.

    An operation has a run of its own, as some cancel or delete theirs; the flow to delete has none.
    """
    server.push(FLOW)
    server.push(FLOW.replace("fuzzed", "spare"))
    session = str(uuid.uuid4())
    with http_for(server, server.key) as http:
        # They go on until a request cancels them, and can be read before and after.
        held = {"parameters": {"hold": "until cancelled"}}
        jobs = [
            http.post("/seq/acme/demo/fuzzed/v1/jobs", json=held, headers={"X-Session-Id": session}).json()
            for _ in ENDPOINTS
        ]
        spare = http.post("/keys", json={"role": "read"}).json()["id"]
    return {
        "org": "acme",
        "project": "demo",
        "slug": "fuzzed",
        "version": "v1",
        "number": "1",
        "step_id": "first",
        "execution_id": " ".join(job["executionId"] for job in jobs),
        "session_id": session,
        "key_id": str(spare),
        "spare_slug": "spare",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

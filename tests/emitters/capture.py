"""A collector that keeps each request as it came, passes it on, and files it as a fixture."""

import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

from tests.http_server import Reply, Request

KEPT = ("Content-Type", "Content-Encoding")
"""Headers that say what a body is; keys and whatever names a machine are not kept."""
FLOW = "x-runglass-flow"
"""The header that says which flow has the runs."""
ANSWERS_S = 60.0


class Export(NamedTuple):
    """A request of an exporter, but for its key."""

    path: str
    headers: dict[str, str]
    body: bytes


class Collector:
    """Keeps requests by the `case` of their time, and sends each on to `target` under a flow of the case."""

    case = ""

    def __init__(self, row: str, target: str, headers: dict[str, str]) -> None:
        self.row, self.target, self.headers = row, target, headers
        self.exports: dict[str, list[Export]] = {}
        self.refused: dict[str, list[str]] = {}

    def answer(self, request: Request) -> Reply:
        """Keeps what was sent and answers as the target does."""
        if not request.body:
            # What SDKs ask before they send: any answer will do.
            return Reply(200, {"Content-Type": "application/json"}, b"{}")
        headers = {name: request.headers[name.lower()] for name in KEPT if name.lower() in request.headers}
        export = Export(request.path, headers, request.body)
        self.exports.setdefault(self.case, []).append(export)
        status, answered, body = send(
            export, self.target, self.headers | {FLOW: flow_of(self.row, self.case)}
        )
        if status != 200 or body:
            self.refused.setdefault(self.case, []).append(f"{export.path}: {status} {body!r}")
        return Reply(status, answered, body)


def flow_of(row: str, case: str) -> str:
    """The slug of the flow that has the runs of a case."""
    return f"{row}-{case.replace('_', '-')}"


def send(export: Export, target: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Sends a request to another server, as it was, but for the key in `headers`."""
    request = urllib.request.Request(
        target + export.path, export.body, export.headers | headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWERS_S) as answer:
            return answer.status, {"Content-Type": answer.headers["Content-Type"]}, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {"Content-Type": error.headers["Content-Type"] or ""}, error.read()


def write(file: Path, exports: list[Export]) -> None:
    """Files requests, in an archive whose bytes depend on nothing else."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number, (path, headers, body) in enumerate(exports):
            head = "".join(f"{name}: {value}\n" for name, value in headers.items())
            archive.writestr(zipfile.ZipInfo(f"{number}.head"), f"POST {path}\n{head}")
            archive.writestr(zipfile.ZipInfo(f"{number}.body"), body, zipfile.ZIP_DEFLATED)


def read(file: Path) -> list[Export]:
    exports = []
    with zipfile.ZipFile(file) as archive:
        for number in range(len(archive.namelist()) // 2):
            first, *lines = archive.read(f"{number}.head").decode().splitlines()
            headers = dict(line.split(": ", 1) for line in lines)
            exports.append(Export(first.removeprefix("POST "), headers, archive.read(f"{number}.body")))
    return exports

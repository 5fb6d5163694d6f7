"""A collector that keeps each request as it came, passes it on, and files it as a fixture."""

import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.http_server import listening

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


class Local(ThreadingHTTPServer):
    """A server on a free port of this machine, by whose `case` what comes is kept."""

    daemon_threads = True
    case = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


Server = TypeVar("Server", bound=Local)


@contextmanager
def served(server: Server) -> Iterator[Server]:
    """The server answers until the block ends."""
    with listening(server):
        yield server


class Collector(Local):
    """Keeps requests by `case`, and sends each on to `target` with `headers` and the flow `ROW-CASE`."""

    def __init__(self, row: str, target: str | None, headers: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.row, self.target, self.headers = row, target, headers
        self.exports: dict[str, list[Export]] = {}
        self.refused: dict[str, list[str]] = {}

    def take(self, export: Export) -> tuple[int, dict[str, str], bytes]:
        """Keeps it and returns what to answer: what the target did, else that all is well."""
        self.exports.setdefault(self.case, []).append(export)
        if self.target is None:
            return 200, {"Content-Type": export.headers.get("Content-Type", "application/x-protobuf")}, b""
        status, headers, body = send(export, self.target, self.headers | {FLOW: flow_of(self.row, self.case)})
        if status != 200 or body:
            self.refused.setdefault(self.case, []).append(f"{export.path}: {status} {body!r}")
        return status, headers, body


@contextmanager
def collector(
    row: str, target: str | None = None, headers: dict[str, str] | None = None
) -> Iterator[Collector]:
    with served(Collector(row, target, headers or {})) as server:
        yield server


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
            archive.writestr(_compressed(f"{number}.body"), body)


def read(file: Path) -> list[Export]:
    exports = []
    with zipfile.ZipFile(file) as archive:
        for number in range(len(archive.namelist()) // 2):
            first, *lines = archive.read(f"{number}.head").decode().splitlines()
            headers = dict(line.split(": ", 1) for line in lines)
            exports.append(Export(first.removeprefix("POST "), headers, archive.read(f"{number}.body")))
    return exports


def _compressed(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Collector

    def do_POST(self) -> None:
        body = b"".join(self._pieces())
        headers = {name: self.headers[name] for name in KEPT if self.headers[name]}
        status, answered, content = self.server.take(Export(self.path, headers, body))
        self.send_response(status)
        for name, value in answered.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _pieces(self) -> Iterator[bytes]:
        if self.headers["Transfer-Encoding"] != "chunked":
            yield self.rfile.read(int(self.headers["Content-Length"]))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def do_GET(self) -> None:
        """What SDKs ask before they send: any answer will do."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Says nothing: what came is kept."""

"""A server of HTTP whose answers a test makes."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import NamedTuple


class Request(NamedTuple):
    path: str
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


@contextmanager
def answering(answer: Callable[[Request], Reply], *, port: int = 0) -> Iterator[str]:
    """The address of a server that answers requests so, each in a thread, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = answer(Request(self.path, headers, b"".join(self._body(headers))))
            # Who asked may have been killed.
            with suppress(ConnectionError):
                self.send_response_only(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

        do_GET = do_POST

        def _body(self, headers: Mapping[str, str]) -> Iterator[bytes]:
            if headers.get("transfer-encoding") != "chunked":
                yield self.rfile.read(int(headers.get("content-length", 0)))
                return
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with listening(ThreadingHTTPServer(("127.0.0.1", port), Handler)) as found:
        yield f"http://127.0.0.1:{found}"


@contextmanager
def listening(server: HTTPServer) -> Iterator[int]:
    """The port of the server, which serves until the block ends."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()

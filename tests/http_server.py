"""A server of HTTP whose answers a test makes."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import NamedTuple


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


@contextmanager
def answering(answer: Callable[[str, bytes], Reply], *, port: int = 0) -> Iterator[str]:
    """The address of a server that answers a path and a body so, each in a thread, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reply = answer(self.path, self.rfile.read(int(self.headers.get("content-length", 0))))
            # Who asked may have been killed.
            with suppress(ConnectionError):
                self.send_response_only(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

        do_GET = do_POST

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

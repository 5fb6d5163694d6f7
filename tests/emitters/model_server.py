"""A model server that keeps a ledger: what it answered, and which usage it told, call by call.

It speaks OpenAI's chat completions, responses and embeddings, Anthropic's messages and Gemini, streamed or
not. The prompt says what happens: `[tools]` asks for two tools at once, `[long]` streams until the caller
leaves, `[cached]` tells cached, written and reasoning tokens, `[fail-429]` and `[fail-500]` fail once. Every
call has its own numbers of tokens, so that a sum says which calls are in it. It knows nothing of tracing.
"""

import json
import re
import select
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec.structs import replace

from tests.emitters.answers import TEXT, Answer, Ask, anthropic, chat, embeddings, gemini, responses
from tests.emitters.ledger import Call, Usage
from tests.http_server import listening

APIS = {
    "completions": chat,
    "responses": responses,
    "embeddings": embeddings,
    "messages": anthropic,
    "gemini": gemini,
}
"""By the last part of the path."""
LEAVES_S = 10.0
"""So long a stream that the caller should leave waits for that."""


class ModelServer(ThreadingHTTPServer):
    """`calls` is the ledger; a call has the `case` of its time."""

    daemon_threads = True
    case = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[Call] = []
        self._failed: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def enter(self, ask: Ask) -> Call:
        """Notes a call, and what it costs."""
        with self._lock:
            number = len(self.calls) + 1
            usage = Usage(1000 + 7 * number, 0 if ask.api == "embeddings" else 40 + 3 * number)
            if "[cached]" in ask.text:
                reasoning = 0 if ask.api == "msg" else 16 + number
                cache_write = 0 if ask.api == "gemini" else 128
                usage = replace(usage, cached=512, cache_write=cache_write, reasoning=reasoning)
            call = Call(
                self.case, f"{ask.api}-{self.case}-{number}", ask.api, ask.model, usage, ask.is_stream
            )
            for status in re.findall(r"\[fail-(\d+)\]", ask.text):
                if (self.case, status) not in self._failed:
                    self._failed.add((self.case, status))
                    call.status = int(status)
                    break
            self.calls.append(call)
            return call


@contextmanager
def model_server() -> Iterator[ModelServer]:
    server = ModelServer()
    with listening(server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        route, _, method = self.path.partition("?")[0].rpartition("/")[2].partition(":")
        if method in ("generateContent", "streamGenerateContent"):
            body |= {"model": route, "stream": method == "streamGenerateContent"}
            route = "gemini"
        api = APIS.get(route)
        if api is None:
            self._answer(404, {"error": {"message": f"no route {self.path}", "type": "not_found_error"}})
            return
        answer = api(body)
        call = self.server.enter(answer.ask)
        if call.status != 200:
            message = {"type": "server_error", "message": "not this time", "code": None, "param": None}
            self._answer(call.status, {"type": "error", "error": message}, {"retry-after-ms": "1"})
        elif call.is_stream:
            self._stream(answer, call)
        else:
            call.told = call.usage
            self._answer(200, answer.whole(call), {"request-id": f"request-{call.id}"})

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, answer: Answer, call: Call) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        is_left = False
        with suppress(ConnectionError):
            for frame in answer.frames(call):
                if "[long]" in answer.ask.text and TEXT[-1] in frame.data:
                    is_left = True
                    break
                self._send((f"event: {frame.event}\n" if frame.event else "") + f"data: {frame.data}\n\n")
                call.told = frame.told or call.told
            if is_left:
                self._await_leaving()
            else:
                self.wfile.write(b"0\r\n\r\n")
                call.is_ended = True
        self.close_connection = is_left

    def _send(self, text: str) -> None:
        content = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    def _await_leaving(self) -> None:
        if select.select([self.connection], [], [], LEAVES_S)[0]:
            self.connection.recv(1, socket.MSG_PEEK)

    def log_message(self, *_: object) -> None:
        """Says nothing: the ledger has it."""

"""The limit: uvicorn as our server uses it, answering with bytes that lie ready. No framework, no store.

Any path that ends in `/NAME` answers with the file NAME of the folder at once; one that begins with `/stream`
in parts of 64 KiB.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn

PART_BYTES = 64 * 1024
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Bare:
    """The ASGI application."""

    def __init__(self, folder: Path) -> None:
        self._answers = {path.name: path.read_bytes() for path in folder.iterdir()}

    async def __call__(self, scope: Message, receive: object, send: Send) -> None:
        path: str = scope["path"]
        body = self._answers[path.rpartition("/")[2]]
        headers = [(b"content-type", b"application/json")]
        if not path.startswith("/stream"):
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path.startswith("/stream"):
            for at in range(0, len(body), PART_BYTES):
                part = body[at : at + PART_BYTES]
                await send({"type": "http.response.body", "body": part, "more_body": True})
            body = b""
        await send({"type": "http.response.body", "body": body})


class _Announced(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        sys.stdout.write(f"ready http://127.0.0.1:{port}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    config = uvicorn.Config(
        Bare(Path(sys.argv[1])),
        host="127.0.0.1",
        port=0,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        interface="asgi3",
    )
    asyncio.Runner(loop_factory=config.get_loop_factory()).run(_Announced(config).serve())

"""What Runglass uses of others beyond their documented interface: a test names what a new version broke."""

import ast
import inspect
from pathlib import Path

import httpcore2
import httpx2
import pydantic_ai
import uvicorn
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from runglass.server.http import uvicorn_protocol


def own_attributes(cls: type) -> set[str]:
    """Names that the class defines, or sets on itself."""
    (tree,) = (
        node
        for node in ast.parse(Path(inspect.getfile(cls)).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    of_self = {node.attr for node in attributes(tree) if isinstance(node.ctx, ast.Store)}
    return of_self | {name for name in vars(cls) if not name.startswith("__")}


def attributes(tree: ast.AST) -> list[ast.Attribute]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    ]


def test_uvicorn_has_every_part_of_its_protocol_that_is_used() -> None:
    ours = uvicorn_protocol.HttpProtocol
    (tree,) = (
        node
        for node in ast.parse(Path(uvicorn_protocol.__file__).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == ours.__name__
    )
    used = {node.attr for node in attributes(tree)}
    inherited = used - own_attributes(ours) | {
        "on_body",
        "on_header",
        "on_url",
        "on_message_begin",
        "pipeline",
    }
    assert len(inherited) > 8
    missing = inherited - own_attributes(HttpToolsProtocol)
    assert not missing, f"uvicorn {uvicorn.__version__} has no {sorted(missing)} in HttpToolsProtocol"
    of_cycle = {"disconnected", "message_event", "more_body", "response_complete", "response_started"}
    assert of_cycle <= own_attributes(RequestResponseCycle)
    assert inspect.iscoroutinefunction(uvicorn.Server.startup)
    assert hasattr(uvicorn.Server, "capture_signals")


def test_httpx2_lets_the_network_of_its_pools_be_replaced() -> None:
    """`client/transport/blocking.py` puts a backend that keeps deadlines in its place."""
    proxies = {"http://": httpx2.HTTPTransport(), "https://": httpx2.HTTPTransport()}
    with httpx2.Client(mounts=proxies) as client:
        told = f"httpx2 {httpx2.__version__}: "
        assert isinstance(client._transport, httpx2.HTTPTransport), told + "Client._transport"
        assert set(client._mounts.values()) == set(proxies.values()), told + "Client._mounts"
        for transport in (client._transport, *proxies.values()):
            backend = transport._pool._network_backend
            assert isinstance(backend, httpcore2.NetworkBackend), told + "ConnectionPool._network_backend"


def test_pydantic_ai_keeps_the_http_client_of_a_provider_where_it_is_looked_for() -> None:
    """`engine/models/provider_clients.py` hears of the requests there."""
    provider = OpenAICompatibleProvider("local", base_url="http://localhost", api_key="none")
    client = provider._own_http_client
    assert isinstance(client, httpx2.AsyncClient), f"pydantic-ai {pydantic_ai.__version__}"
    assert provider.client._client is client

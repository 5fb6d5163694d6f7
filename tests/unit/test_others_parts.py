"""What Runglass uses of others beyond their documented interface: a test names what a new version broke."""

import inspect
from typing import Any

import anthropic
import httpcore2
import httpx2
import openai
import pydantic_ai
from pydantic_ai.models import StreamedResponse
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider


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


def test_streams_of_openai_and_anthropic_iterate_over_a_part_that_can_be_replaced() -> None:
    """`recorder/wrapping.py` puts what watches the chunks there, and hears of the end from the body."""
    response = httpx2.Response(200, content=b"", request=httpx2.Request("POST", "http://localhost"))
    with openai.OpenAI(api_key="none") as client, anthropic.Anthropic(api_key="none") as other:
        streams: list[Any] = [
            openai.Stream(cast_to=object, response=response, client=client),
            anthropic.Stream(cast_to=object, response=response, client=other),
        ]
    for stream in streams:
        told = f"openai {openai.__version__}, anthropic {anthropic.__version__}: "
        stream._iterator = iter(["a chunk"])
        assert list(stream) == ["a chunk"], told + "Stream._iterator"
        assert callable(stream.response.stream.close), told + "Stream.response.stream"


def test_streams_of_pydantic_ai_take_usage_in_one_place() -> None:
    """`engine/models` lets the largest counts hold there."""
    told = f"pydantic-ai {pydantic_ai.__version__}: StreamedResponse"
    parameters = inspect.signature(StreamedResponse._add_usage).parameters
    assert [*parameters] == ["self", "usage", "reported", "cumulative"], told + "._add_usage"

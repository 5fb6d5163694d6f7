"""Clients for the server that options and environment name."""

from typing import TYPE_CHECKING

from runglass.cli.exit_codes import UsageError

if TYPE_CHECKING:
    from runglass.client import Client
    from runglass.client.api.async_client import AsyncClient


def connect(base_url: str | None, api_key: str | None) -> "Client":
    """A client for the server. Raises UsageError, AuthenticationError."""
    # Imported when called, as in `connect_async`: commands without a server are not to wait for HTTP.
    from runglass.client import Client

    try:
        client = Client(api_key or None, base_url=base_url or None)
        # Made here and not by the first call, as it also judges the proxies that the environment names.
        _ = client._transport
        return client
    except ValueError as error:
        raise UsageError(str(error)) from error


def connect_async(base_url: str | None, api_key: str | None) -> "AsyncClient":
    """As `connect`, for commands that do several things at once."""
    from runglass.client.api.async_client import AsyncClient

    try:
        return AsyncClient(api_key or None, base_url=base_url or None)
    except ValueError as error:
        raise UsageError(str(error)) from error

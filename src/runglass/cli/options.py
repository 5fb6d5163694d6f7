"""Options that several commands share, each spelled and described once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runglass.cli.exit_codes import UsageError

if TYPE_CHECKING:
    from runglass.client import Client
    from runglass.client.api.async_client import AsyncClient

BaseUrl = Annotated[
    str | None,
    typer.Option(envvar="RUNGLASS_BASE_URL", help="The server, as `serve` prints it: http://localhost:8080."),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="RUNGLASS_API_KEY",
        help="The key; better set in the environment, where no process list shows it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Data = Annotated[
    Path | None, typer.Option(help="Folder of the database; by default as `runglass serve` takes it.")
]
Store = Annotated[str | None, typer.Option(help="The database, where it is not in the data folder.")]


def connect(base_url: str | None, api_key: str | None) -> "Client":
    """A client for the server that flags and environment name. Raises UsageError, AuthenticationError."""
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

"""Wake-ups by NATS, on one core subject for each installation: nothing is stored there."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from runglass.bus.carrier import CLOSE_S, CONNECT_S, SEND_S, BusAway, Hear, Send
from runglass.config.address import NatsAddress
from runglass.support.logs import plain_cause

log = logging.getLogger(__name__)

_LOST = (OSError, ValueError, Error)
"""What nats-py raises where there is no connection, or no more; with the time-outs, which are OSErrors."""


class NatsCarrier:
    """Carries texts between the processes that have the same address.

    Raises OSError where a file that the address names cannot be read.
    """

    def __init__(self, address: NatsAddress) -> None:
        # For the error: a later connection reads the files anew, as certificates are renewed.
        _tls(address)
        self.name = address.shown
        self._address = address

    @asynccontextmanager
    async def connect(self, *, hear: Hear, lost: Hear) -> AsyncIterator[Send]:
        subject = f"{self._address.prefix}.wake"
        client = Client()

        async def heard(message: Msg) -> None:
            hear(message.data.decode("ascii", "replace"))

        async def send(text: str) -> None:
            try:
                async with asyncio.timeout(SEND_S):
                    await client.publish(subject, text.encode("ascii"))
            except _LOST as error:
                raise self._away(error) from error

        try:
            try:
                await self._open(client, lost)
                await client.subscribe(subject, cb=heard)
            except _LOST as error:
                # What the library was told at last says more than what it then raises.
                raise self._away(client.last_error or error) from error
            yield send
        finally:
            # After a handshake that failed, the library would wait for an end that does not come.
            with suppress(*_LOST):
                async with asyncio.timeout(CLOSE_S):
                    await client.close()

    async def _open(self, client: Client, lost: Hear) -> None:
        address = self._address

        async def failed(error: Exception) -> None:
            log.debug("%s: %s", self.name, error)

        async def closed() -> None:
            lost(f"{self.name} closed the connection")

        async with asyncio.timeout(CONNECT_S):
            await client.connect(
                address.servers,
                name="runglass",
                user=address.user,
                password=address.password,
                token=address.token,
                tls=await asyncio.to_thread(_tls, address),
                # Otherwise somebody between could talk the client out of TLS, and have the password.
                tls_handshake_first=address.is_tls,
                # A lost connection is made anew by the bus.
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=failed,
                closed_cb=closed,
            )

    def _away(self, error: Exception) -> BusAway:
        return BusAway(f"{self.name}: {plain_cause(error)}")


def _tls(address: NatsAddress) -> ssl.SSLContext | None:
    if not address.is_tls and address.ca is None and address.cert is None:
        return None
    context = ssl.create_default_context(cafile=address.ca)
    if address.cert is not None:
        context.load_cert_chain(address.cert, address.key)
    return context

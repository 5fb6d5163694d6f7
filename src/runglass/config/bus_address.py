"""The address of a NATS bus: its servers, how to sign in, and what of it may be shown."""

import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote

_HOST = r"(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d{1,5})?"
_WHOLE = re.compile(
    rf"(?P<scheme>nats|tls)://(?:(?P<user>[^/?#@:]+)(?::(?P<password>[^/?#@]*))?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<prefix>[\w-]*))?(?:\?(?P<options>[^#@]*))?"
)
_OPTIONS = ("ca", "cert", "key")
DEFAULT_PREFIX = "runglass"


def is_nats(address: str) -> bool:
    """Whether the address is that of a NATS bus, well formed or not."""
    return address.startswith(("nats://", "tls://"))


class NatsAddress(NamedTuple):
    """`nats://USER:PASSWORD@HOST:PORT,HOST:PORT/PREFIX?ca=FILE&cert=FILE&key=FILE`; `tls://` for TLS.

    A user without a password is a token. `prefix` keeps installations apart that share a NATS.
    """

    servers: list[str]
    user: str | None
    password: str | None
    token: str | None
    prefix: str
    is_tls: bool
    ca: str | None
    cert: str | None
    key: str | None

    def __repr__(self) -> str:
        return f"NatsAddress({self.shown})"

    @property
    def shown(self) -> str:
        """The address without user, password, token and options, for messages."""
        return ",".join(self.servers)


def parse_nats_address(address: str) -> NatsAddress:
    """The parts of the address. Raises ValueError, which does not show it: it may hold a password."""
    parts = _WHOLE.fullmatch(address)
    if parts is None:
        raise ValueError(
            "it is no address as nats://user:password@host:4222 (it is not shown here, as it may hold a"
            " password); in user and password write / as %2F, @ as %40, : as %3A, ? as %3F, # as %23 and"
            " % as %25"
        )
    options = parse_qs(parts["options"] or "", keep_blank_values=True)
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise ValueError(f"it has an unknown option {unknown[0]!r}; it may have {', '.join(_OPTIONS)}")
    files = {name: options[name][-1] if name in options else None for name in _OPTIONS}
    if (files["cert"] is None) != (files["key"] is None):
        raise ValueError("a client's certificate needs both cert=FILE and key=FILE")
    user = None if parts["user"] is None else unquote(parts["user"])
    password = None if parts["password"] is None else unquote(parts["password"])
    return NatsAddress(
        servers=[f"{parts['scheme']}://{host}" for host in parts["hosts"].split(",")],
        user=None if password is None else user,
        password=password,
        token=user if password is None else None,
        prefix=parts["prefix"] or DEFAULT_PREFIX,
        is_tls=parts["scheme"] == "tls",
        ca=files["ca"],
        cert=files["cert"],
        key=files["key"],
    )

"""The addresses of a store and of a bus: which kind they are of, and what of them may be shown.

They may hold a password, which no message, log and process list is to have.
"""

import re
import ssl
from typing import NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote

NOT_SHOWN = (
    "(it is not shown here, as it may hold a password); in user and password write / as %2F, @ as %40, : as"
    " %3A, ? as %3F, # as %23 and % as %25"
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_POSTGRES = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)
_POSTGRES_HOST = r"(?:[\w.%-]*|\[[\da-fA-F:.%]+\])(?::\d*)?"
_WHOLE_POSTGRES = re.compile(
    rf"postgres(?:ql)?://(?P<user>[^/?#@]*@)?(?P<location>{_POSTGRES_HOST}(?:,{_POSTGRES_HOST})*(?:/[^/?#@]*)?)(?P<options>\?[^#@]*)?",
    re.IGNORECASE,
)
_CA_FILES = frozenset({"sslrootcert", "sslcrl"})
_TLS_FILES = _CA_FILES | {"sslcert", "sslkey"}
_PASSWORD_OPTION = re.compile(r"[?&](?:ssl)?password=", re.IGNORECASE)


def is_postgres(address: str) -> bool:
    """Whether the address is that of a PostgreSQL database, well formed or not."""
    return _POSTGRES.match(address) is not None


def is_well_formed(address: str) -> bool:
    """Whether it is plain where the user, the password and the host of the PostgreSQL address end."""
    return _WHOLE_POSTGRES.fullmatch(address) is not None


def has_password(address: str) -> bool:
    """Whether the address may hold a password; of one that is not well formed that is not known."""
    parts = _WHOLE_POSTGRES.fullmatch(address)
    if parts is None:
        return is_postgres(address) or "@" in address or _PASSWORD_OPTION.search(address) is not None
    return ":" in (parts["user"] or "") or _PASSWORD_OPTION.search(parts["options"] or "") is not None


def check_files(address: str) -> None:
    """Raises ValueError where a file for TLS that the PostgreSQL address names cannot be read, or is none."""
    parts = _WHOLE_POSTGRES.fullmatch(address)
    options = dict(parse_qsl((parts["options"] or "").removeprefix("?"))) if parts else {}
    if options.get("sslmode") == "disable":
        return
    for name in _TLS_FILES & options.keys():
        try:
            with open(options[name], "rb"):
                pass
            if name in _CA_FILES:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(options[name])
        except ssl.SSLError as error:
            raise ValueError(f"the file {options[name]!r} of {name} has no certificate") from error
        except OSError as error:
            raise ValueError(
                f"the file {options[name]!r} of {name} cannot be read: {error.strerror}"
            ) from error


def shown_address(address: str) -> str:
    """The address without user, password and options, for messages."""
    if parts := _WHOLE_POSTGRES.fullmatch(address):
        return f"postgresql://{parts['location']}"
    if not has_password(address):
        return address
    # Where the scheme was forgotten, a user and password come first.
    scheme = _SCHEME.match(address)
    return f"{scheme[0] if scheme else ''}…"


_NATS_HOST = r"(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d{1,5})?"
_WHOLE_NATS = re.compile(
    rf"(?P<scheme>nats|tls)://(?:(?P<user>[^/?#@:]+)(?::(?P<password>[^/?#@]*))?@)?"
    rf"(?P<hosts>{_NATS_HOST}(?:,{_NATS_HOST})*)(?:/(?P<prefix>[\w-]*))?(?:\?(?P<options>[^#@]*))?"
)
_NATS_FILES = ("ca", "cert", "key")
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
    parts = _WHOLE_NATS.fullmatch(address)
    if parts is None:
        raise ValueError(f"it is no address as nats://user:password@host:4222 {NOT_SHOWN}")
    options = parse_qs(parts["options"] or "", keep_blank_values=True)
    if unknown := sorted(options.keys() - set(_NATS_FILES)):
        raise ValueError(f"it has an unknown option {unknown[0]!r}; it may have {', '.join(_NATS_FILES)}")
    files = {name: options[name][-1] if name in options else None for name in _NATS_FILES}
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

"""The address of a store: which kind it is of, and what of it may be shown.

The address of a PostgreSQL database may hold a password, which no message, log and process list is to have.
"""

import re
import ssl
from urllib.parse import parse_qsl

_POSTGRES = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)
_HOST = r"(?:[\w.%-]*|\[[\da-fA-F:.%]+\])(?::\d*)?"
_WHOLE = re.compile(
    rf"postgres(?:ql)?://(?P<user>[^/?#@]*@)?(?P<place>{_HOST}(?:,{_HOST})*(?:/[^/?#@]*)?)(?P<options>\?[^#@]*)?",
    re.IGNORECASE,
)
_OF_OTHERS = frozenset({"sslrootcert", "sslcrl"})
_FILES = _OF_OTHERS | {"sslcert", "sslkey"}
_PASSWORD_OPTION = re.compile(r"[?&](?:ssl)?password=", re.IGNORECASE)


def is_postgres(address: str) -> bool:
    """Whether the address is that of a PostgreSQL database, well formed or not."""
    return _POSTGRES.match(address) is not None


def is_well_formed(address: str) -> bool:
    """Whether it is plain where the user, the password and the host of the PostgreSQL address end."""
    return _WHOLE.fullmatch(address) is not None


def has_password(address: str) -> bool:
    """Whether the address may hold a password; of one that is not well formed that is not known."""
    parts = _WHOLE.fullmatch(address)
    if parts is None:
        return is_postgres(address) or "@" in address or _PASSWORD_OPTION.search(address) is not None
    return ":" in (parts["user"] or "") or _PASSWORD_OPTION.search(parts["options"] or "") is not None


def check_files(address: str) -> None:
    """Raises ValueError where a file for TLS that the PostgreSQL address names cannot be read, or is none."""
    parts = _WHOLE.fullmatch(address)
    options = dict(parse_qsl((parts["options"] or "").removeprefix("?"))) if parts else {}
    if options.get("sslmode") == "disable":
        return
    for name in _FILES & options.keys():
        try:
            with open(options[name], "rb"):
                pass
            if name in _OF_OTHERS:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(options[name])
        except ssl.SSLError as error:
            raise ValueError(f"the file {options[name]!r} of {name} has no certificate") from error
        except OSError as error:
            raise ValueError(
                f"the file {options[name]!r} of {name} cannot be read: {error.strerror}"
            ) from error


def shown_address(address: str) -> str:
    """The address without user, password and options, for messages."""
    if parts := _WHOLE.fullmatch(address):
        return f"postgresql://{parts['place']}"
    return f"{address.partition('://')[0]}://…" if has_password(address) else address

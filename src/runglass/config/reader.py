"""Reads the settings, once: flags win over the environment, the environment over `runglass.toml`."""

import logging
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from runglass.config.settings import Settings, SettingsError
from runglass.support.safe_text import is_whole

_log_warning = partial(logging.getLogger(__name__).warning, "%s")

PREFIX = "RUNGLASS_"
CLIENT_VARIABLES: dict[str, str] = {
    "RUNGLASS_BASE_URL": "URL of the server, as `serve` prints it, for the client and the terminal commands",
    "RUNGLASS_API_KEY": "API key, for the client and the terminal commands",
    "RUNGLASS_REPLAY": "`1` switches on `client.replay()`; only for tests and debugging",
}
"""Variables with the same prefix that are not settings of the server."""

_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://\S+:\d+")
_OF_A_SERVICE = re.compile(
    r"(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
"""Names of the variables that Kubernetes sets for a service called `runglass`, or `runglass-…`."""

_FILE_NAMES = frozenset({"data", "flows", "store"})
"""Settings that name files, which on most systems need not be UTF-8."""

warned: set[str] = set()


def read_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    warn: Callable[[str], None] = _log_warning,
) -> Settings:
    """The settings in force. `file` defaults to `runglass.toml` in the current folder, if there is one.

    Raises SettingsError for an unfit value, and for an unknown name in the file. A variable with an unknown
    name may belong to another program: `warn` is called with a warning, once in the life of the process.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    path = file or Path("runglass.toml")
    if file is not None or path.exists():
        try:
            of_file = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{path}: {error}") from error
        _convert(of_file, str(path))
        values |= of_file
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if (warning := _why_ignored(variable, text)) is not None:
            if warning and warning not in warned:
                warned.add(warning)
                warn(warning)
            continue
        if name not in _FILE_NAMES and not is_whole(text):
            # It is not shown: it may hold a key.
            raise SettingsError(f"environment variable {variable} is not UTF-8 text")
        # Lists and tables have no plain spelling in a variable: they are given as JSON.
        if text[:1] in "[{" and text:
            try:
                values[name] = msgspec.json.decode(text)
            except msgspec.DecodeError as error:
                raise SettingsError(f"environment variable {variable} is not valid JSON: {error}") from error
        else:
            values[name] = text
        _convert({name: values[name]}, f"environment variable {variable}")
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    if "data" in given:
        # A flag wins, and a store from elsewhere would have the database in another place.
        values.pop("store", None)
    return _convert(values | given, "settings")


def _why_ignored(variable: str, text: str) -> str | None:
    """The reason why a variable is ignored, empty where no warning is needed; None for one that is read."""
    name = variable.removeprefix(PREFIX)
    is_link = _SERVICE_LINK.fullmatch(text) is not None
    if name == "PORT" and is_link:
        return (
            f"environment variable {variable} is ignored: {text!r} is what Kubernetes sets for a service "
            "called 'runglass'; give the port by --port or in runglass.toml, or set enableServiceLinks: false"
        )
    if name.lower() in Settings.__struct_fields__:
        return None
    if is_link or _OF_A_SERVICE.fullmatch(name):
        return ""
    # Imported here: a misspelt variable is rare.
    import difflib

    known = {each.removeprefix(PREFIX): each for each in CLIENT_VARIABLES}
    known |= {field.upper(): PREFIX + field.upper() for field in Settings.__struct_fields__}
    # difflib takes quadratic time, and no setting has a name that long.
    near = difflib.get_close_matches(name.upper(), known, n=1) if len(name) <= 64 else []
    hint = f"; did you mean {known[near[0]]}?" if near else ""
    return f"environment variable {variable} is ignored: there is no setting {name.lower()!r}{hint}"


def _convert(values: Mapping[str, Any], source: str) -> Settings:
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    try:
        return msgspec.convert(plain, Settings, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        from msgspec import inspect

        fields = {field.name: field.type for field in inspect.type_info(Settings).fields}  # type: ignore[attr-defined]
        kind = fields.get(str(error).rpartition("`$.")[2].removesuffix("`"))
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
        choices = ""
        if isinstance(kind, inspect.LiteralType):
            choices = "; it may be " + ", ".join(repr(value) for value in kind.values)
        raise SettingsError(f"{source}: {error}{choices}") from error


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)

"""Parsers of arguments and options: ORG/PROJECT, ORG/PROJECT/SLUG, iterations, versions, times, inputs."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, cast

import msgspec

from runglass.cli.exit_codes import UsageError
from runglass.config.address import has_password, is_postgres
from runglass.wire.run_api import Version

MOST = 2**31 - 1
"""The largest number that there may be of anything: stores and servers take none beyond."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ProjectName(NamedTuple):
    org: str
    project: str

    def __str__(self) -> str:
        return f"{self.org}/{self.project}"


class FlowName(NamedTuple):
    """The name of a flow; without a project it is of that of the key."""

    project: ProjectName | None
    slug: str


def project_name(text: str) -> ProjectName:
    """`ORG/PROJECT`. Raises UsageError."""
    parts = text.split("/")
    if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise UsageError(
            f"{text!r} does not name a project: write ORG/PROJECT, each part up to 64 letters, digits, "
            "`.`, `_` or `-`, the first a letter or digit"
        )
    if parts[0] == "sessions":
        raise UsageError("an organisation cannot be named 'sessions': its flows would have no address")
    return ProjectName(*parts)


def flow_name(text: str) -> FlowName:
    """`ORG/PROJECT/SLUG`, or `SLUG`. Raises UsageError."""
    project, slash, slug = text.rpartition("/")
    # In the path of an address these two have a meaning of their own.
    if slug in ("", ".", "..") or (slash and project.count("/") != 1):
        raise UsageError(f"{text!r} does not name a flow: write ORG/PROJECT/SLUG, or SLUG")
    return FlowName(project_name(project) if slash else None, slug)


def version(text: str) -> Version:
    """`production`, `draft` or a number. Raises UsageError."""
    if text in ("production", "draft"):
        return cast(Version, text)
    if (number := _number(text)) is not None:
        return number
    raise UsageError(f"version {text!r} does not exist: write production, draft or a number")


def attempt(text: str) -> Literal["latest", "all"] | int:
    """`latest`, `all` or a number from 1 on. Raises UsageError."""
    if text in ("latest", "all"):
        return cast(Literal["latest", "all"], text)
    if number := _number(text):
        return number
    raise UsageError(f"attempt {text!r} does not exist: write latest, all or a number from 1 on")


def step_id(text: str) -> str:
    """The step's id. A recorded step's name, which trees of runs show, is made its id."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def loop_path(text: str) -> tuple[int, ...]:
    """`3`, or for nested loops `0.3` or `0,3`, outer to inner. Raises UsageError."""
    parts = re.split(r"[.,]", text)
    path = tuple(number for part in parts if (number := _number(part)) is not None)
    if len(path) < len(parts):
        raise UsageError(
            f"iteration {text!r} does not exist: write 3, or 0.3 in nested loops (outer to inner)"
        )
    return path


def _number(text: str) -> int | None:
    # Python refuses to read a number of thousands of digits.
    return int(text) if text.isdecimal() and len(text) <= 10 and int(text) <= MOST else None


_AGE = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def since(text: str, *, now: datetime | None = None) -> datetime:
    """`2h` before `now`, or a date with or without a time, in the local zone. Raises UsageError."""
    try:
        if age := _AGE.fullmatch(text):
            return (now or datetime.now(UTC)) - timedelta(seconds=int(age[1]) * _SECONDS[age[2]])
        # Aware, and in the local zone where the text names none.
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is no time: write an age such as 30m, 2h, 1d or 1w, or a date such as 2026-11-20 or"
            " 2026-11-20T14:30"
        ) from error


def store_address(text: str) -> str:
    """The address of a store without a password, as others can see arguments. Raises UsageError."""
    if is_postgres(text) and has_password(text):
        raise UsageError(
            "a password in --store could be seen by others on this machine; give the address in"
            " RUNGLASS_STORE or runglass.toml, or the password alone in PGPASSWORD or in the file ~/.pgpass"
        )
    return text


def parameter(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`; the value is JSON where it reads as JSON, else text. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"parameter {text!r} has no name and value: write NAME=VALUE")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


def text_of(data: bytes, name: str) -> str:
    """The text of a file, by its bytes. Raises UsageError."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start} (0x{data[error.start]:02X}) is wrong"
        raise UsageError(f"{name} is not UTF-8 text: {wrong}") from error

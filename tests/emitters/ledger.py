"""What a model server told of each call, and the file that keeps it."""

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens; cached and written ones are part of `input`, reasoning of `output`."""

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0


class Call(msgspec.Struct, forbid_unknown_fields=True):
    """One request to the model server. `told` is the usage that its answer told, None where it told none."""

    case: str
    id: str
    api: str
    model: str
    usage: Usage
    is_stream: bool
    status: int = 200
    is_ended: bool = False
    told: Usage | None = None


def write(file: Path, calls: Iterable[Call]) -> None:
    file.write_text("".join(json.dumps(msgspec.to_builtins(call)) + "\n" for call in calls), "utf-8")


def read(file: Path) -> list[Call]:
    return [msgspec.json.decode(line, type=Call) for line in file.read_text("utf-8").splitlines()]

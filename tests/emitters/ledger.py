"""What a model server told of each call, and the file that keeps it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    """Tokens; cached and written ones are part of `input`, reasoning of `output`."""

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0


@dataclass
class Call:
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
    file.write_text("".join(json.dumps(_members(call)) + "\n" for call in calls), "utf-8")


def read(file: Path) -> list[Call]:
    return [_call(json.loads(line)) for line in file.read_text("utf-8").splitlines()]


def _members(call: Call) -> dict[str, object]:
    told = call.told._asdict() if call.told else None
    return asdict(call) | {"usage": call.usage._asdict(), "told": told}


def _call(members: dict[str, object]) -> Call:
    told, usage = members.pop("told"), members.pop("usage")
    return Call(
        **members,  # type: ignore[arg-type]
        usage=Usage(**usage),  # type: ignore[arg-type]
        told=Usage(**told) if told else None,  # type: ignore[arg-type]
    )

"""The values of options and arguments, without pydantic.

Typer turns every value into its type by a pydantic adapter, also one that was not given. That costs a
command about 50 ms, and a server would hold the 9 MB for good. What is plainly right is therefore taken here;
anything else is left to Typer, which also words what is wrong with it.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer._click import Command, Context
from typer._coercion import RuntimeParam, TypeDescriptor, build_runtime_param
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.models import ParameterInfo

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)
_PATH_CHECKS = ("exists", "writable", "resolve_path", "path_type")
_NOT_PLAIN = object()


def take_plainly(command: Command) -> Command:
    """The command, whose parameters and those of its subcommands now take plain values without pydantic."""
    for each in _commands(command):
        # With --help, which a command makes when it is first asked for its parameters.
        for param in each.get_params(Context(each)):
            if isinstance(param, TyperArgument | TyperOption):
                about = param.type_descriptor
                param._runtime_param = _Plain(about.parameter_info, about.annotation, about)
    return command


def _commands(command: Command) -> Iterator[Command]:
    yield command
    if isinstance(command, TyperGroup):
        for each in command.commands.values():
            yield from _commands(each)


@dataclass(frozen=True)
class _Plain(RuntimeParam):
    about: TypeDescriptor

    def _coerce_value(self, value: Any, param: Any, ctx: Context) -> Any:
        plain = _plain(value, self.annotation, self.parameter_info)
        if plain is _NOT_PLAIN:
            return build_runtime_param(self.about).coerce(value, param, ctx)
        return plain


def _plain(value: Any, wanted: Any, info: ParameterInfo) -> Any:
    if get_origin(wanted) is list:
        (inner,) = get_args(wanted)
        values = [_plain(each, inner, info) for each in value]
        return _NOT_PLAIN if _NOT_PLAIN in values else values
    if type(value) is int and wanted is int:
        value = str(value)
    if type(value) is not str or info.parser is not None:
        return _NOT_PLAIN
    if get_origin(wanted) is Literal:
        return value if value in get_args(wanted) else _NOT_PLAIN
    if wanted is str:
        return value
    if wanted is Path:
        return _path(value, info)
    if wanted is float or (wanted is int and value.isdecimal()):
        return _number(value, wanted, info)
    return _NOT_PLAIN


def _path(value: str, info: ParameterInfo) -> Any:
    is_checked = any(getattr(info, check) for check in _PATH_CHECKS) or not (info.file_okay and info.dir_okay)
    if is_checked or "\0" in value or (os.path.exists(value) and not os.access(value, os.R_OK)):
        return _NOT_PLAIN
    return Path(value)


def _number(value: str, wanted: type[int] | type[float], info: ParameterInfo) -> Any:
    if not _NUMBER.fullmatch(value):
        return _NOT_PLAIN
    number = wanted(value)
    is_inside = (info.min is None or number >= info.min) and (info.max is None or number <= info.max)
    return number if is_inside else _NOT_PLAIN

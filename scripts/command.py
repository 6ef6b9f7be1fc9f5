"""A command as reports and model cards name it, and a script of `benchmarks/` as one."""

import shlex
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import tyro

from worldmodel.errors import UserError


def command_line(name: str, args: Any) -> str:
    """`worldmodel NAME` with the arguments, a dataclass, that are not the default."""
    return shlex.join(["worldmodel", name, *words(args)])


def words(args: Any) -> list[str]:
    """The arguments, a dataclass, that are not the default; of an absolute OUT the last name alone.

    That travels, and the place on this machine does not.
    """
    line: list[str] = []
    hints = get_type_hints(type(args), include_extras=True)
    for field in fields(args):
        value = getattr(args, field.name)
        if is_dataclass(value):
            line += words(value)
        elif tyro.conf.Positional in get_args(hints[field.name]):
            line.append(str(value))
        elif value != field.default:
            line.append(f"--{field.name.replace('_', '-')}")
            value = Path(value.name) if field.name == "out" and value.is_absolute() else value
            line += map(str, value) if isinstance(value, tuple) else [str(value)]
    return line


def run_script(main: Callable[[Any], None], args: type) -> None:
    """Call `main` with what the command line makes of `args`; what a user did wrong is one sentence, and no more."""
    try:
        main(tyro.cli(args))
    except UserError as error:
        raise SystemExit(str(error)) from error

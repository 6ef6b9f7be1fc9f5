"""How a report names the command that measured it."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any


def command_line(name: str, args: Any) -> str:
    """`worldmodel NAME` with the arguments, a dataclass, that are not the default; of OUT its last name alone.

    A report travels, and the folder that it was made in does not.
    """
    words = ["worldmodel", name]
    for field in fields(args):
        value = getattr(args, field.name)
        if value != field.default:
            words.append(f"--{field.name.replace('_', '-')}")
            value = Path(value.name) if field.name == "out" else value
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return shlex.join(words)

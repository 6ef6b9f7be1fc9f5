"""Options that would do nothing are a mistake: whoever gives one expects something of it."""

from dataclasses import fields
from typing import Any

from worldmodel.errors import UserError


def refuse_unused(args: Any, *names: str, where: str, prefix: str = "") -> None:
    """Raise `UserError` when one of these fields of a dataclass is not what it is by default.

    `prefix`: what stands before their names on the command line.
    """
    given = [field.name for field in fields(args) if field.name in names and getattr(args, field.name) != field.default]
    if given:
        options = " and ".join(f"--{prefix}{name.replace('_', '-')}" for name in given)
        raise UserError(f"{options} would do nothing {where}: leave it out.")

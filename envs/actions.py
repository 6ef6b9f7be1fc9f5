"""What the real worlds ask of an action before their engines see it."""

from typing import Any

from gymnasium import Space

from worldmodel.errors import UserError


def check_action(action: Any, space: Space[Any]) -> None:
    """Raise `UserError` for an action that is not in `space`: as an index a negative one would press another button."""
    if action not in space:
        raise UserError(f"{action} is no action of this world, which has {space}.")

"""The one exception that means "you can fix this", and the one way to ask for an optional dependency."""

import importlib
from types import ModuleType


class UserError(Exception):
    """A mistake a user can mend. Its message is one sentence: what was wrong and what to do.

    The command line prints the message and exits with code 2; a library caller may catch it like any exception.
    """


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `UserError` naming the extra of this package that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{module} is not installed; it comes with the extra [{extra}]: pip install 'worldmodel[{extra}]'."
        ) from error

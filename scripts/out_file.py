"""Where a command writes one file: made sure of before the work."""

from pathlib import Path

from worldmodel.errors import UserError


def make_way(out: Path) -> None:
    """Make the folder that the file `out` will be in. Raises `UserError` where `out` is itself a folder."""
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file in it with --out.")
    out.parent.mkdir(parents=True, exist_ok=True)

"""`--out`: what cannot be written there is known before the work."""

from pathlib import Path

from worldmodel.errors import UserError
from worldmodel.files import check_replaceable


def room_for_file(path: Path) -> None:
    """Make the folder around a file that will be written. Raises `UserError` where a folder is in its place."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file as --out.")
    path.parent.mkdir(parents=True, exist_ok=True)


def room_for_folder(folder: Path) -> None:
    """Make the folder around one that will be written. Raises `UserError` where anything is in its place."""
    check_replaceable(folder.resolve(), ())
    folder.parent.mkdir(parents=True, exist_ok=True)

"""`--out`: what stands in the way of writing there is known before the work."""

from pathlib import Path

from worldmodel.errors import UserError
from worldmodel.files import check_replaceable


def apart_from(data: str, out: Path) -> None:
    """Raise `UserError` where `out` lies in the folder that is learned from, of which it would become a part."""
    folder = Path(data)
    if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out} lies in {data}, and would be taken for a part of it: choose another --out.")


def room_for_file(path: Path) -> None:
    """Make the folder around a file that will be written. Raises `UserError` where a folder is in its place."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file as --out.")
    path.parent.mkdir(parents=True, exist_ok=True)


def room_for_png(path: Path) -> None:
    """`room_for_file`; raises `UserError` for the name of another kind of picture, too."""
    if path.suffix.lower() != ".png" and not path.is_dir():
        raise UserError(f"Pictures are written as PNG, and {path.name} does not end in .png: choose another --out.")
    room_for_file(path)


def room_for_folder(folder: Path) -> None:
    """Make the folder around one that will be written. Raises `UserError` where anything is in its place."""
    check_replaceable(folder.resolve(), ())
    folder.parent.mkdir(parents=True, exist_ok=True)

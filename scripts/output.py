"""`--out`: what stands in the way of writing there is known before the work."""

import json
import os
from pathlib import Path
from typing import TypeVar

from worldmodel.errors import UserError
from worldmodel.files import check_replaceable

T = TypeVar("T")


def apart_from(data: str, out: Path) -> None:
    """Raise `UserError` where `out` lies in the folder that is learned from, of which it would become a part."""
    folder = Path(data)
    if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out} lies in {data}, and would be taken for a part of it: choose another --out.")


def room_for_file(path: Path) -> None:
    """Raise `UserError` where a file cannot be written, in a folder that may have to be made."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file as --out.")
    _room_in(path.parent)


def read_record(path: Path, empty: T) -> T:
    """What a JSON file of results holds: `empty` where there is none, or else something of its type.

    Raises `UserError` for a damaged file.
    """
    if not path.exists():
        return empty
    try:
        record = json.loads(path.read_text())
    except ValueError:
        record = None
    if not isinstance(record, type(empty)):
        raise UserError(f"{path} is damaged, or holds something else: take it away, or name another.")
    return record


def room_for_png(path: Path) -> None:
    """`room_for_file`; raises `UserError` for the name of another kind of picture, too."""
    if path.suffix.lower() != ".png" and not path.is_dir():
        raise UserError(f"Pictures are written as PNG, and {path.name} does not end in .png: choose another --out.")
    room_for_file(path)


def room_for_folder(folder: Path) -> None:
    """Raise `UserError` where a folder cannot be written, or anything is in its place."""
    check_replaceable(folder.resolve(), ())
    _room_in(folder.parent)


def _room_in(folder: Path) -> None:
    """Raise `UserError` where nothing can be written in a folder, which is not made: the work may come to nothing."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"Nothing can be written in {there}: choose another --out.")

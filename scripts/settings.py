"""`train.json`: what a training was asked for, kept beside its checkpoints."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from worldmodel.errors import UserError
from worldmodel.files import strangers, write_text


def write_settings(folder: Path, settings: dict[str, Any], may_differ: Collection[str] = ()) -> None:
    """Leave `settings` in `folder`. Those that `may_differ` are replaced.

    Raises `UserError` when a training with other settings lives there already, or something that is no training.
    """
    settings = json.loads(json.dumps(settings, default=str))  # as they will be read
    path = folder / "train.json"
    if path.exists():
        try:
            before = json.loads(path.read_text())
            if before.keys() != settings.keys():
                raise UserError(f"{folder} holds a training by another command or version; choose another --out.")
            held = {name: value for name, value in settings.items() if name not in may_differ}
            other = [f"{name} {before.get(name)}" for name, value in held.items() if not _same(before.get(name), value)]
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged; choose another --out, or remove it.") from error
        if other and strangers(folder, [path.name]):  # alone they are of a training that did not begin
            raise UserError(f"{folder} holds a training with {', '.join(other)}; choose another --out.")
    elif strangers(folder, [path.name]):
        raise UserError(f"{folder} holds something that is not a training; choose another --out.")
    write_text(path, json.dumps(settings, indent=2) + "\n")


def _same(before: Any, now: Any) -> bool:
    """Whether two settings are equal, or two spellings of one path that is there."""
    if before == now or not (isinstance(before, str) and isinstance(now, str)):
        return before == now
    return Path(before).exists() and Path(now).exists() and Path(before).samefile(now)

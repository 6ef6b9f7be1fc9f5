"""`train.json`: what a training was asked for, kept beside its checkpoints."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from worldmodel.errors import UserError
from worldmodel.files import write_text


def write_settings(folder: Path, settings: dict[str, Any], may_differ: Collection[str] = ()) -> None:
    """Leave `settings` in `folder`. Raises `UserError` when a training with other settings lives there already.

    Those that `may_differ` are replaced.
    """
    settings = json.loads(json.dumps(settings, default=str))  # as they will be read
    path = folder / "train.json"
    if path.exists():
        try:
            before = json.loads(path.read_text())
            held = {name: value for name, value in settings.items() if name not in may_differ}
            other = [f"{name} {before.get(name)}" for name, value in held.items() if before.get(name) != value]
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged; choose another --out, or remove it.") from error
        if other:
            raise UserError(f"{folder} holds a training with {', '.join(other)}; choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings, indent=2) + "\n")

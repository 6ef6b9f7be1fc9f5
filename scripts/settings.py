"""`train.json`: what a training was asked for, kept beside its checkpoints."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from worldmodel.errors import UserError
from worldmodel.files import write_text


def write_settings(folder: Path, settings: dict[str, Any], same: Iterable[str] | None = None) -> None:
    """Leave `settings` in `folder`. Raises `UserError` when a training with other settings lives there already.

    Those that are not among the `same`, if given, may differ.
    """
    path = folder / "train.json"
    if path.exists():
        try:
            before = json.loads(path.read_text())
            names = settings if same is None else same
            other = [f"{name} {before.get(name)}" for name in names if before.get(name) != settings[name]]
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged; choose another --out, or remove it.") from error
        if other:
            raise UserError(f"{folder} holds a training with {', '.join(other)}; choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings, indent=2) + "\n")

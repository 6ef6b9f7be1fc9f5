"""Models as folders: where one is, what to call it, and its config read back."""

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from worldmodel.errors import UserError

BUNDLED = Path(__file__).parent / "pretrained"


def find_model(name: str | Path) -> Path:
    """The folder of the model called `name`, downloaded if it is on the Hub."""
    for folder in (BUNDLED / name, Path(name)):
        if (folder / "config.json").is_file():
            return folder
    if Path(name).is_dir():
        raise UserError(f"{name} is not a model: it has no config.json.")
    bundled = ", ".join(sorted(p.name for p in BUNDLED.glob("*/"))) or "none"
    missing = f"There is no model {name}: it is neither bundled ({bundled}), nor a folder, nor a repository on the Hub."
    if str(name).count("/") != 1:
        raise UserError(missing)
    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "README.md"]))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(missing) from error


def model_name(name: str | Path) -> str:
    """What to call a model in a report: its bundled name or folder, or RUN for RUN/model, where training leaves it."""
    folder = Path(name).resolve()
    return (folder.parent if folder.name == "model" else folder).name


def with_tuples(raw: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; configs are made of tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}

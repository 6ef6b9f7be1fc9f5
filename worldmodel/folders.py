"""Models as folders: where one is, what to call it, what is written there and read back."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from torch import Tensor, nn

from worldmodel.errors import UserError
from worldmodel.files import check_replaceable, new_folder, read_tensors, write_tensors, write_text

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)

Kind = Literal["world", "tokenizer", "image", "audio"]

MODEL_FILES = "config.json", "model.safetensors", "contexts.safetensors", "README.md"
BUNDLED = Path(__file__).parent / "pretrained"
KINDS: dict[Kind, tuple[str, str]] = {
    "world": ("a world model", "worldmodel train"),
    "tokenizer": ("a tokenizer", "worldmodel train --stage tokenizer"),
    "image": ("a model of images", "worldmodel train-image"),
    "audio": ("a model of speech", "worldmodel train-audio"),
}


def find_model(name: str | Path, kind: Kind) -> Path:
    """The folder of the model called `name`, downloaded if it is on the Hub.

    Raises `UserError`, with the bundled ones of its `kind`, where there is none.
    """
    if not isinstance(name, str | Path) or not str(name):
        raise UserError(f"A model is given by its name or its folder, not by {name!r}.")
    for folder in (BUNDLED / name, Path(name)):
        if (folder / "config.json").is_file():
            if not (folder / "model.safetensors").is_file():
                raise UserError(f"{folder} is not a model, or not all of one: it has no model.safetensors.")
            return folder
    if Path(name).is_dir():
        raise UserError(f"{name} is not a model: it has no config.json.")
    bundled = ", ".join(_bundled(kind)) or "none"
    missing = f"There is no model {name}: it is neither bundled ({bundled}), nor a folder, nor a repository on the Hub."
    if str(name).count("/") != 1:
        raise UserError(missing)
    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "README.md"]))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UserError(missing) from error
    except (HfHubHTTPError, OSError) as error:
        why = str(error).partition("\n")[0]
        raise UserError(
            f"There is no model {name} here, neither bundled ({bundled}) nor a folder, and the Hub cannot be asked for "
            f"it ({why})."
        ) from error


def _bundled(kind: Kind) -> list[str]:
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json") if kind_of(path.parent) == kind)


def lasting_name(name: str | Path) -> str:
    """What finds the same model from any working folder: of a folder, its absolute path."""
    return str(name if (BUNDLED / name).is_dir() or not Path(name).is_dir() else Path(name).resolve())


def model_name(name: str | Path) -> str:
    """What to call a model in a report: its bundled name or folder, or RUN for RUN/model, where training leaves it."""
    folder = Path(name).resolve()
    return (folder.parent if folder.name == "model" else folder).name


def model_names(names: Iterable[str | Path]) -> list[str]:
    """`model_name` of each. Raises `UserError` where two are the same, as figures go by them."""
    found = list(map(model_name, names))
    if len(set(found)) < len(found):
        raise UserError(f"The figures go by the models' names, so these have to differ: {', '.join(found)}.")
    return found


def check_place(device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
    """Raise `UserError` unless a model can run there, so that none is fetched in vain."""
    if isinstance(dtype, torch.dtype) and dtype.is_complex:
        raise UserError(f"A model runs in real numbers, not in {dtype!r}.")
    try:
        nn.Linear(1, 1).to(device, dtype)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f"A model cannot run on device {device!r} in {dtype!r} here.") from error


def write_model(
    folder: str | Path,
    kind: Kind,
    model: nn.Module,
    config: Any,
    card: str,
    *,
    beside: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write `config.json` (of a dataclass), `model.safetensors` (bfloat16) and `README.md`.

    Each of the tensors `beside` those of the model goes into a `.safetensors` file of its name.
    A model that is there already is replaced as a whole; raises `UserError` where something else is.
    """
    weights = {k: v.bfloat16() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    with new_folder(Path(folder).resolve(), MODEL_FILES) as new:
        for name, tensors in {"model": weights, **(beside or {})}.items():
            write_tensors(new / f"{name}.safetensors", tensors)
        write_text(new / "config.json", json.dumps({"kind": kind, **dataclasses.asdict(config)}, indent=2) + "\n")
        write_text(new / "README.md", card)


def check_room(folder: Path) -> None:
    """Raise `UserError` where a folder holds anything but a model, so that none can be saved there."""
    check_replaceable(folder.resolve(), MODEL_FILES)


def kind_of(folder: Path) -> Kind:
    """What the model in a folder is one of. Raises `UserError` where its `config.json` is damaged."""
    return _read(folder)[0]


def read_config(folder: Path, kind: Kind, parse: Callable[[dict[str, Any]], C]) -> C:
    """What `parse` makes of `config.json`. Raises `UserError` where it is damaged, or that of another kind of model."""
    found, raw = _read(folder)
    if found != kind:
        (name, command), (other, _) = KINDS[kind], KINDS[found]
        raise UserError(f"{folder} is {other}, not {name}, which `{command}` makes.")
    with _damage_named(folder / "config.json"):
        return parse(raw)


def _read(folder: Path) -> tuple[Kind, dict[str, Any]]:
    """The kind of a model, and the rest of its `config.json`."""
    path = folder / "config.json"
    with _damage_named(path):
        raw = json.loads(path.read_text())
        if not isinstance(raw, dict):
            raise ValueError("it holds no settings by name")
        kind = raw.pop("kind", "world")
        if kind not in KINDS:
            raise ValueError(f"it is of no known kind, {kind!r}")
        return kind, raw


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Whatever a damaged file leads to is a `UserError` that names it."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError, UserError) as error:
        raise UserError(f"{path} is damaged or of another version ({error}); fetch or train it again.") from error


def read_model(folder: Path, make: Callable[[], M]) -> M:
    """What `make` makes, with the weights in `folder`. Raises `UserError` where they are damaged or another model's."""
    weights = read_tensors(folder / "model.safetensors")
    try:
        model = make()
        model.load_state_dict(weights)
    except (RuntimeError, ValueError, TypeError, LookupError, UserError) as error:
        raise UserError(f"The weights in {folder} do not fit its config.json; fetch or train it again.") from error
    return model.eval()


def with_tuples(raw: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; configs are made of tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}

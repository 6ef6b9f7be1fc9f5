"""Files that are either there whole or not at all."""

import glob
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from worldmodel.errors import UserError

# What a killed `write_bytes` or `new_folder` leaves.
_LEFT = re.compile(r"\..*\.partial(-.*)?")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path`, in a folder that need not be there yet, in one motion: a crash, or a full disk, leaves what was
    there before.
    """
    temporary = path.with_name(f".{path.name}.partial")  # one name, so that a killed writer leaves one at most
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # writing knows only the temporary file, or none
        raise
    finally:
        with suppress(OSError):  # or it would hide the error that names the file
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode(errors="backslashreplace"))  # names of files may be no text


def strangers(folder: Path, known: Collection[str] = ()) -> list[str]:
    """Names in a folder that are not `known`, nor what a killed writer has left; a file is a stranger itself."""
    if not folder.is_dir():
        return [folder.name] if folder.exists() else []
    return sorted(name for name in {path.name for path in folder.iterdir()} - set(known) if not _LEFT.fullmatch(name))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    write_bytes(path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises `UserError` when it is missing or damaged."""
    return read_tensors_and_metadata(path)[0]


def read_tensors_and_metadata(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors, which are not read; cut short it is damaged all the same."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file. Raises `UserError` when it is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}.") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or fetch or train it again.") from error


def read_npz(path: Path, *needed: str) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an npz file. Raises `UserError` when it is missing or damaged, or one that is needed is missing."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}.") from error
    # A damaged zip shows in many ways; a lone array in a file called npz is a TypeError.
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read: it is damaged, or no npz file of plain arrays.") from error
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)}.")
    return arrays


def check_replaceable(folder: Path, files: Collection[str]) -> None:
    """Raise `UserError` where a folder holds anything but `files`, or is the working folder, which has to stay."""
    if folder.resolve() == Path.cwd():
        raise UserError(f"{folder} is the folder that you are in: save in another.")
    if others := strangers(folder, files):
        raise UserError(f"{folder} holds something else ({others[0]}): save elsewhere, or take that away.")


@contextmanager
def new_folder(folder: Path, files: Collection[str]) -> Iterator[Path]:
    """An empty folder to fill with `files`, which then takes the place of `folder` and of those that were in it.

    Where that fails, `folder` is as before. Killed, it leaves a hidden folder beside, with the old one and the new one
    in it if that was between the two renamings; the next that comes to its end takes it away.
    Raises `UserError` where `folder` holds anything else.
    """
    check_replaceable(folder, files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.partial-", dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        yield new
        old = Path(temporary) / "old"
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)  # or it would go with the temporary folder
            raise
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)

"""Still images to learn from.

They are whatever lies at an address, one of

- CIFAR-10 in its own binary version, or the folder around it:

      data_batch_1.bin ... data_batch_5.bin, test_batch.bin    records of a label and 32x32 pixels
      batches.meta.txt                                         the names of the classes, one a line; may be missing

- sheets of tiles, in rows from the top left, numbered from 00; held-out ones are called test or val:

      train_00.webp, ..., test_00.webp, ...   tiles of 32x32
      labels.npz                              train [N], test [N]: CIFAR-10's ten classes
  or
      train_00.webp, ..., val_00.webp, ...    tiles of 128x128
      train_labels.npz, val_labels.npz        label [N], and wnid [classes]: the names of the classes

  where the labels may go on behind the last sheet: the first ones belong to these;

- a folder of images by class, as ImageNet's, with or without the folders train and test (or val) around the classes:

      train/CLASS/*.png                       or *.jpg, *.jpeg, *.webp, *.bmp

- an episode store, whose frames they are.
"""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.files import read_npz

Split = Literal["train", "test"]
Size = tuple[int, int]  # (H, W)

# What a split is called in folders.
NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val")}
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
MOST_FRAMES = 50_000  # of an episode store: about 1 GB at 84x84

# What undoes how a camera was held, by the EXIF tag that says it; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FILES: dict[Split, list[str]] = {
    "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
    "test": ["test_batch.bin"],
}
CIFAR10_SIDE, IMAGENET_SIDE = 32, 128  # pixels
CIFAR10_RECORD = 1 + 3 * CIFAR10_SIDE**2  # bytes: the label, then all of red, of green and of blue


@dataclass(frozen=True, eq=False)
class Images:
    """N images in memory: `pixels` uint8 [N, H, W, 3], and where known their `labels`, int64 [N].

    `classes` are the names of the labels 0, 1, ...; there are none when the images are unlabelled.
    """

    pixels: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def spread(self, n: int) -> Images:
        """`n` of the images, spread evenly from the first to the last; all of them where there are no more."""
        if n >= len(self):
            return self
        chosen = torch.linspace(0, len(self) - 1, n).round().long()
        return Images(self.pixels[chosen], None if self.labels is None else self.labels[chosen], self.classes)


def load_images(address: str, split: Split = "train", size: Size | None = None) -> Images:
    """The images at `address`, as described above, all in memory.

    Images in a folder by class are scaled to just cover `size` (H, W), small ones enlarged, and cropped around their
    centre; `size` has to be given for them. All others are as they are, and `size` may only say what that is.

    An episode store has no splits (its address says which episodes it has) and no labels. Of more than 50,000 frames
    that many are taken, evenly.

    Raises `UserError` when there are no such images, or when any of them is not as it should be.
    """
    if split not in get_args(Split):
        raise UserError(f'The splits are {" and ".join(get_args(Split))}, not "{split}".')
    if size is not None and min(size) < 1:
        raise UserError(f"Images are 1x1 at least, not {_text(size)}.")
    if EpisodeStore.exists(address):
        return _frames(address, size)
    folder = Path(address)
    if not folder.is_dir():
        raise UserError(f"There is no folder and no episode store at {address}.")
    for place in (folder, folder / "cifar-10-batches-bin"):
        if any((place / name).exists() for names in CIFAR10_FILES.values() for name in names):
            return _cifar10(place, split, size)
    if (folder / "labels.npz").exists() or any(folder.glob("*_labels.npz")):
        return _sheets(folder, split, size)
    splits = {name: classes for names in NAMES.values() for name in names if (classes := _folders(folder / name))}
    if any(_pictures(place) for classes in (_folders(folder), *splits.values()) for place in classes):
        return _classes(folder, splits, split, size)
    raise UserError(
        f"{address} has no images of a known kind: CIFAR-10's *.bin, sheets with a labels.npz or train_labels.npz, "
        "a folder of images a class, or an episode store."
    )


def _cifar10(folder: Path, split: Split, size: Size | None) -> Images:
    _check_size(folder, (CIFAR10_SIDE, CIFAR10_SIDE), size)
    names = folder / "batches.meta.txt"
    classes: tuple[str, ...] = CIFAR10_CLASSES
    if names.exists():
        try:
            classes = tuple(names.read_text("utf-8").strip().splitlines())
        except (OSError, ValueError) as error:
            raise UserError(f"{names} cannot be read ({error}).") from error
    pixels, labels = [], []
    for name in CIFAR10_FILES[split]:
        path = folder / name
        if not path.is_file():
            raise UserError(f"There is no file {path}.")
        data = np.fromfile(path, np.uint8)
        if not len(data) or len(data) % CIFAR10_RECORD:
            raise UserError(f"{path} was cut short: {len(data)} bytes are not records of {CIFAR10_RECORD} each.")
        records = data.reshape(-1, CIFAR10_RECORD)
        labels.append(_labels(path, records[:, 0], len(records), classes))
        pixels.append(rearrange(records[:, 1:], "n (c h w) -> n h w c", c=3, h=CIFAR10_SIDE))
    # NumPy would keep the colours apart in memory, and every image drawn later would be gathered from there.
    return Images(torch.from_numpy(np.ascontiguousarray(np.concatenate(pixels))), torch.cat(labels), classes)


def _sheets(folder: Path, split: Split, size: Size | None) -> Images:
    counts = {name: count for name in NAMES[split] if (count := len(list(folder.glob(f"{name}_[0-9]*.webp"))))}
    if not counts:
        raise UserError(f"{folder} has no {split} images: there is no sheet {NAMES[split][-1]}_00.webp.")
    name, count = next(iter(counts.items()))
    # Counted, then named: were one missing in the middle, the labels of all later ones would be wrong.
    sheets = [folder / f"{name}_{i:02}.webp" for i in range(count)]
    path = folder / "labels.npz"
    classes: tuple[str, ...] = CIFAR10_CLASSES
    if path.exists():
        labels, side = read_npz(path, name)[name], CIFAR10_SIDE
    else:
        path = folder / f"{name}_labels.npz"
        table, side = read_npz(path, "label", "wnid"), IMAGENET_SIDE
        labels, classes = table["label"], tuple(str(name) for name in table["wnid"].ravel())
    _check_size(folder, (side, side), size)
    pixels: list[npt.NDArray[np.uint8]] = []
    shape: tuple[int, ...] | None = None
    for sheet in sheets:
        tiles = _read(sheet)
        shape = shape or tiles.shape
        if tiles.shape != shape or tiles.shape[0] % side or tiles.shape[1] % side:
            raise UserError(
                f"{sheet} is {_text(tiles.shape)}, but a sheet is whole tiles of {side}x{side}, and as large as "
                f"{sheets[0].name}."
            )
        pixels.append(rearrange(tiles, "(r h) (c w) k -> (r c) h w k", h=side, w=side))
    images = torch.from_numpy(np.concatenate(pixels))
    return Images(images, _labels(path, labels, len(images), classes), classes)


def _classes(folder: Path, splits: dict[str, list[Path]], split: Split, size: Size | None) -> Images:
    """Of a folder by class; `splits` are the class folders in its train, test and val, if that is what it has."""
    if size is None:
        raise UserError(f"{folder} has images of any size: give the size to load them at.")
    found = [splits[name] for name in NAMES[split] if name in splits] if splits else [_folders(folder)]
    if not found or (split == "test" and not splits):
        raise UserError(f"{folder} has no {split} images: they would be in {folder / NAMES[split][-1]}, by class.")
    places = found[0]
    # The same labels in every split, even if the held-out images lack a class.
    classes = tuple(place.name for place in splits.get("train", places))
    paths: list[Path] = []
    labels: list[int] = []
    for place in places:
        if place.name not in classes:
            raise UserError(f"{place} is no class of {folder / 'train'}.")
        pictures = _pictures(place)
        if not pictures:
            raise UserError(f"{place} has no images ({', '.join(sorted(PICTURES))}): add some, or remove the class.")
        paths += pictures
        labels += [classes.index(place.name)] * len(pictures)
    pixels = np.empty((len(paths), *size, 3), np.uint8)
    with ThreadPoolExecutor() as pool:  # decoding and scaling do not hold Python's lock
        try:
            for i, image in enumerate(pool.map(lambda path: _read(path, size), paths)):
                pixels[i] = image
        finally:
            pool.shutdown(cancel_futures=True)  # or what ends this would wait until all is read
    return Images(torch.from_numpy(pixels), torch.tensor(labels), classes)


def _frames(address: str, size: Size | None) -> Images:
    store = EpisodeStore.open(address)
    if not len(store):
        raise UserError(f"{address} is empty: record some episodes first.")
    _check_size(address, store.frame_shape[:2], size)
    ends = np.cumsum(store.lengths + 1)  # an episode of T steps has T + 1 frames
    total = int(ends[-1])
    count = min(total, MOST_FRAMES)
    chosen = np.arange(count) * total // count  # among all frames, one episode after the other
    pixels = np.empty((count, *store.frame_shape), np.uint8)
    for episode, (first, end) in enumerate(zip(ends - store.lengths - 1, ends, strict=True)):
        for start in range(first, end, 2048):  # a long episode need not fit in memory
            rows = slice(*np.searchsorted(chosen, (start, min(start + 2048, end))))
            frames = chosen[rows] - first
            if len(frames):
                pixels[rows] = store.frames(episode, frames[0], frames[-1] + 1)[frames - frames[0]]
    return Images(torch.from_numpy(pixels), None, ())


def _read(path: Path, size: Size | None = None) -> npt.NDArray[np.uint8]:
    """An image as it is, or scaled and cropped to `size`: uint8 [H, W, 3]."""
    try:
        with Image.open(path) as file:
            picture: Image.Image = file
            if size is not None:
                file.draft(None, (2 * max(size), 2 * max(size)))  # a JPEG is decoded no larger than needed
                # As the photographer held the camera. ImageOps.exif_transpose stumbles over other, damaged tags.
                turn = TURNS.get(file.getexif().get(ExifTags.Base.Orientation, 1))
                picture = file if turn is None else file.transpose(turn)
            if picture.mode.startswith(("I", "F")):  # Pillow would cut their values off at 255
                raise UserError(f"{path} has more than 8 bits a channel: save it with 8.")
            picture = picture.convert("RGB")
            if size is not None:
                picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)
            return np.asarray(picture)
    except FileNotFoundError:
        raise UserError(f"There is no {path}.") from None
    # What Pillow's decoders raise on damaged files; an absurdly large image is damaged, too.
    except (OSError, ValueError, SyntaxError, IndexError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not an image that can be read ({error}).") from error


def _labels(path: Path, labels: npt.NDArray[Any], images: int, classes: tuple[str, ...]) -> Tensor:
    """The first `images` labels of those in a file, int64 [images]."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{path} needs labels that are whole numbers, of shape [N].")
    if len(labels) < images:
        raise UserError(f"{path} has {len(labels)} labels for {images} images.")
    labels = labels[:images]
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(f"{path} has labels {labels.min()} to {labels.max()}, but there are {len(classes)} classes.")
    return torch.from_numpy(labels.astype(np.int64))


def _check_size(address: str | Path, there: Size, size: Size | None) -> None:
    if size not in (None, there):
        raise UserError(
            f"The images at {address} are {_text(there)}, not {_text(size)}: choose the preset, or the model, of their "
            "size."
        )


def _text(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, if it is one, in the order of their names."""
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    """The images in a folder, in the order of their names."""
    paths = folder.iterdir()
    return sorted(path for path in paths if path.suffix.lower() in PICTURES and not path.name.startswith("."))

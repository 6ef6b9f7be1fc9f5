"""Pictures and films of frames, for people."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from worldmodel.files import write_bytes

_LABEL_HEIGHT, _GAP = 14, 4  # pixels


def tile(pictures: Tensor) -> Tensor:
    """Rows and columns of pictures, uint8 [rows, columns, H, W, 3], as one picture, uint8 [rows*H, columns*W, 3]."""
    return torch.cat([torch.cat(list(row), 1) for row in pictures])


def strips(rows: Sequence[tuple[str, Tensor]], *, given: int = 0) -> Image.Image:
    """Frames in labelled rows, a gap after the first `given` frames of each. A row: its label, uint8 [T, H, W, 3]."""
    parts: list[npt.NDArray[np.uint8]] = []
    for label, frames in rows:
        pieces = [
            np.concatenate(list(part), 1) for part in (frames[:given].numpy(), frames[given:].numpy()) if len(part)
        ]
        gap = np.full((frames.shape[1], _GAP, 3), 255, np.uint8)
        line = np.concatenate([pieces[0], *(x for piece in pieces[1:] for x in (gap, piece))], 1)
        parts += [_title(label, line.shape[1]), line]
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in parts]
    return Image.fromarray(np.concatenate(padded))


def titled(label: str, frames: Tensor) -> Tensor:
    """A film with its label above: uint8 [T, H, W, 3] -> uint8 [T, H + label, W, 3]."""
    title = torch.from_numpy(_title(label, frames.shape[2]))
    return torch.cat([title.expand(len(frames), -1, -1, -1), frames], 1)


def _title(label: str, width: int) -> npt.NDArray[np.uint8]:
    title = Image.new("RGB", (width, _LABEL_HEIGHT), "white")
    ImageDraw.Draw(title).text((2, 1), label, fill="black")
    return np.array(title)


def write_png(path: Path, picture: Image.Image) -> None:
    content = BytesIO()
    picture.save(content, "png")
    write_bytes(path, content.getvalue())


def write_film(path: Path, frames: Tensor, fps: float, *, scale: int = 4) -> None:
    """An mp4 of frames, uint8 [T, H, W, 3], enlarged `scale` times so that single pixels can be seen."""
    large = frames.numpy().repeat(scale, 1).repeat(scale, 2)
    content = iio.imwrite("<bytes>", large, extension=".mp4", plugin="pyav", codec="libx264", fps=float(fps))
    write_bytes(path, content)

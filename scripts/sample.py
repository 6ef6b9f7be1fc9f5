"""`worldmodel sample`: a model of images -> new images, drawn from its prior (Figures 3 and 4 of the paper)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scripts.device import FASTEST, Device, check_device
from scripts.output import room_for_png
from worldmodel.errors import UserError
from worldmodel.image_model import ImageModel
from worldmodel.pictures import tile, write_png
from worldmodel.sampling import check_seed, check_temperature

COLUMNS = 8
MOST_ROWS = 100  # which are drawn side by side


@dataclass
class Args:
    """Draw new images from a model's prior."""

    model: str
    """A bundled name, a folder made by `worldmodel train-image`, or a Hub id."""
    out: Path = Path("runs/samples.png")
    """The picture, class by class."""
    label: tuple[str, ...] = ()
    """Classes to draw, by name or number; all of them if not given. For a model that knows classes."""
    rows: int = 2
    """Rows of eight images; for a model that knows classes, of each class."""
    temperature: float = 1.0
    """Below 1 images keep to what is likely."""
    seed: int = 0
    device: Device = FASTEST


def main(args: Args) -> None:
    check_device(args.device)
    check_temperature(args.temperature)
    check_seed(args.seed)
    if not 1 <= args.rows <= MOST_ROWS:
        raise UserError(f"There are 1 to {MOST_ROWS} rows, not {args.rows}.")
    model = ImageModel.from_pretrained(args.model, device=args.device)
    classes = model.config.classes
    if args.label and not classes:
        raise UserError(f"{args.model} knows no classes: leave out --label.")
    labels: list[int | None] = [_label(name, classes) for name in args.label]
    labels = labels or [*range(len(classes))] or [None]
    room_for_png(args.out)
    seeds = np.random.SeedSequence(args.seed).generate_state(len(labels)).tolist()  # none is that of another --seed
    drawn = [
        model.sample(COLUMNS * args.rows, label=label, seed=seed, temperature=args.temperature)
        for label, seed in zip(labels, seeds, strict=True)
    ]
    write_png(args.out, Image.fromarray(tile(torch.cat(drawn).unflatten(0, (-1, COLUMNS))).numpy()))
    named = ", ".join(classes[label] for label in labels if label is not None)
    print(f"{args.out}: {named or 'samples'}, from top to bottom.")


def _label(name: str, classes: tuple[str, ...]) -> int:
    if name in classes:
        return classes.index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    raise UserError(f"There is no class {name}; the model knows {', '.join(classes)}.")

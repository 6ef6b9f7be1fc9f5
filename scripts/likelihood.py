"""`worldmodel likelihood`: what a model of images is worth on held-out ones, in bits and decibels."""

import json
from dataclasses import dataclass
from pathlib import Path

from scripts.device import FASTEST, Device, check_device
from scripts.output import room_for_file
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.image_data import load_images
from worldmodel.image_evaluation import evaluate_images
from worldmodel.image_model import ImageModel
from worldmodel.metrics import Result


@dataclass
class Args:
    """Measure a model of images: bits per dim, bits per code, and how well its codes keep pictures."""

    model: str
    """A bundled name, a folder made by `worldmodel train-image`, or a Hub id."""
    data: str
    """The images that it was trained on, for the baselines, which take 10,000 of them at most; and of those held
    out, unless there is --test."""
    test: str | None = None
    """Held-out images, where they are elsewhere: an episode store has no splits."""
    limit: int = 2_000
    """Take so many held-out images, spread evenly."""
    out: Path | None = None
    """Write the figures here, too, as json."""
    device: Device = FASTEST


def main(args: Args) -> None:
    check_device(args.device)
    if args.limit < 2:
        raise UserError(f"--limit is 2 or more, not {args.limit}.")
    if args.test is None and EpisodeStore.exists(args.data):
        raise UserError(f"{args.data} has no splits: give held-out episodes with --test.")
    model = ImageModel.from_pretrained(args.model, device=args.device)
    size = model.config.image.image_size
    training = load_images(args.data, "train", size).spread(10_000)
    images = load_images(args.test or args.data, "test", size).spread(args.limit)
    if args.out is not None:
        room_for_file(args.out)
    result = evaluate_images(model, images, training)
    for line in _lines(result):
        print(line)
    if args.out is not None:
        write_text(args.out, json.dumps(result, indent=2) + "\n")


def _lines(result: Result, prefix: str = "") -> list[str]:
    lines = []
    for name, value in result.items():
        title = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            lines += _lines(value, f"{title}, ")
        else:
            lines.append(f"{title}: {value}" if isinstance(value, int) else f"{title}: {value:.4g}")
    return lines

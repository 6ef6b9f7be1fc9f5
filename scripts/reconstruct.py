"""`worldmodel reconstruct`: images -> what a model's codes keep of them (Figures 2 and 5 of the paper)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scripts.device import FASTEST, Device, check_device
from scripts.output import room_for_png
from scripts.unused import refuse_unused
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.image_data import load_images
from worldmodel.image_model import ImageModel
from worldmodel.metrics import psnr
from worldmodel.pictures import strips, write_png
from worldmodel.sampling import check_seed


@dataclass
class Args:
    """Draw images as a model's codes keep them; for a model with a second stage also as its three codes do."""

    model: str
    """A bundled name, a folder made by `worldmodel train-image`, or a Hub id."""
    data: str
    """Images: CIFAR-10's own files, sheets of images, a folder of images a class, or an episode store."""
    out: Path = Path("runs/reconstructions.png")
    """The picture: given, reconstructed and, with a second stage, drawn from three codes an image."""
    split: Literal["train", "test"] = "test"
    """Of the data; an episode store has none."""
    n: int = 8
    """How many images, spread evenly over the data."""
    seed: int = 0
    """Of the second stage's draws."""
    device: Device = FASTEST


def main(args: Args) -> None:
    check_device(args.device)
    check_seed(args.seed)
    if EpisodeStore.exists(args.data):
        refuse_unused(args, "split", where=f"in the episode store {args.data}, which has none")
    model = ImageModel.from_pretrained(args.model, device=args.device)
    room_for_png(args.out)
    images = load_images(args.data, args.split, model.config.image.image_size)
    if not 1 <= args.n <= len(images):
        raise UserError(f"--n is from 1 to {len(images)}, as many images as there are.")
    chosen = images.spread(args.n).pixels
    decoded = model.vqvae.reconstruct(chosen).cpu()
    rows = [("given", chosen), ("reconstructed", decoded)]
    if model.second_stage is not None:
        rows.append((f"from {model.second_stage.config.latents} codes", model.resample(chosen, seed=args.seed)))
    write_png(args.out, strips(rows))
    print(f"{args.out}: {float(psnr(decoded, chosen).mean()):.1f} dB.")

"""The comparison of §4.1: VAE, VQ-VAE and VIMCO on CIFAR-10, at one budget, over some capacities.

    python benchmarks/images.py --data DATA/cifar10 --out runs/images

DATA/cifar10 is any of the layouts that `worldmodel train-image` reads. Each model is trained for the same number of
steps, of the same images, by the same optimizer, and scored on held-out images a few times on the way. Writes the
table to OUT/images.json and prints it; run it again after an interruption, and finished models are not trained again.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from scripts.command import run_script
from scripts.device import FASTEST, Device, check_device
from scripts.output import read_record
from worldmodel.baselines import ImageVAE, ImageVIMCO
from worldmodel.benchmark.report import table
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.image import PRESETS, ImageConfig, ImageVQVAE
from worldmodel.image_data import Images, load_images
from worldmodel.image_evaluation import evaluate_bound
from worldmodel.image_objectives import AnyImageModel, ImageObjective
from worldmodel.likelihood import LikelihoodName
from worldmodel.training import FitConfig, check_schedules, fit

MODELS: dict[str, Callable[[ImageConfig], AnyImageModel]] = {
    "VAE": ImageVAE,
    "VQ-VAE": ImageVQVAE,
    "VQ-VAE, rotation": lambda config: ImageVQVAE(dataclasses.replace(config, rotation=True)),
    "VIMCO": ImageVIMCO,
}

SETTINGS = ("data", "code_dim", "likelihood", "width", "steps", "batch", "lr", "test_images")


@dataclass
class Args:
    data: str
    out: Path = Path("runs/images")
    steps: int = 2_000
    batch: int = 16
    lr: float = 1e-3
    width: int = 64
    """Channels of all models; the paper has 256."""
    maps: tuple[int, ...] = (2, 10)
    """Capacities: codes a place."""
    code_dim: int = 2
    """Dimensions of a code, and of a VAE's latents in its place, which do better with few."""
    likelihood: LikelihoodName = "logistic"
    models: tuple[Literal["VAE", "VQ-VAE", "VQ-VAE, rotation", "VIMCO"], ...] = ("VAE", "VQ-VAE", "VIMCO")
    """"VQ-VAE, rotation" is the VQ-VAE with the rotation trick, which came after the paper."""
    test_images: int = 500
    points: int = 5
    """Of the curve over steps."""
    device: Device = FASTEST


class Scored(ImageObjective):
    """Scores the model on held-out images whenever it is asked for pictures."""

    def __init__(self, model: AnyImageModel, train: Images, test: Images) -> None:
        super().__init__(model, train)
        self.test = test
        self.scores: list[dict[str, float]] = []

    def pictures(self) -> dict[str, torch.Tensor]:
        self.scores.append(evaluate_bound(self.model, self.test.pixels))
        return super().pictures()


def main(args: Args) -> None:
    check_device(args.device)
    check_schedules((args.batch,), (args.lr,), seed=0)
    train, test = load_images(args.data, "train", (32, 32)), load_images(args.data, "test", (32, 32))
    if not 1 <= args.points <= args.steps or not 1 <= args.test_images <= len(test):
        raise UserError(f"--points is from 1 to --steps, and --test-images from 1 to {len(test)}.")
    test = test.spread(args.test_images)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "images.json"
    rows: list[dict[str, Any]] = read_record(path, [])
    for maps in args.maps:
        config = dataclasses.replace(
            PRESETS["cifar10"], width=args.width, maps=maps, code_dim=args.code_dim, likelihood=args.likelihood
        )
        for name in args.models:
            settings = {"model": name, "maps": maps, **{k: getattr(args, k) for k in SETTINGS}}
            if any(settings.items() <= row.items() for row in rows):
                continue
            torch.manual_seed(0)
            model = MODELS[name](config).to(args.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            objective = Scored(model, train, test)
            begin, every = time.monotonic(), args.steps // args.points
            folder = args.out / "-".join(map(str, settings.values()))
            shutil.rmtree(folder, ignore_errors=True)  # a training that was stopped has lost its curve: anew
            fit(objective, FitConfig(args.steps, args.batch, args.lr, pictures_every=every), folder)
            curve = {min(every * n, args.steps): score for n, score in enumerate(objective.scores, 1)}
            rows.append(
                {
                    **settings,
                    "parameters": sum(p.numel() for p in model.parameters()),
                    "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
                    "seconds": round(time.monotonic() - begin),
                    **curve[args.steps],
                    "curve": {step: score["bits_per_dim"] for step, score in curve.items()},
                }
            )
            write_text(path, json.dumps(rows, indent=2) + "\n")
    print(comparison(rows))


def comparison(rows: list[dict[str, Any]]) -> str:
    """The table for people."""
    header = ["model", "maps", "dimensions", "likelihood", "bits/dim", "rate", "distortion", "parameters", "steps of"]
    cells = []
    for r in rows:
        bits = [f"{r[part]:.3f}" for part in ("bits_per_dim", "rate", "distortion")]
        spent = [f"{r['parameters']:,}", f"{r['steps']:,} x {r['batch']}", f"{r['seconds']:,} {r['device']}"]
        cells.append([r["model"], r["maps"], r["code_dim"], r["likelihood"], *bits, *spent])
    return table([*header, "seconds on"], cells)


if __name__ == "__main__":
    run_script(main, Args)

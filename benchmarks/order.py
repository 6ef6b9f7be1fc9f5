"""What the diagonal order costs in bits a code, and what it saves in time, against the paper's raster order.

    python benchmarks/order.py --model dmlab-seekavoid --train-store stores/arena_train --store stores/arena_test

Both orders get the same tokenizer and a prior of their own, trained from scratch for the same steps on the same
windows; then both predict the same held-out episodes, and draw frames.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
import tyro

from worldmodel.episodes import EpisodeStore
from worldmodel.evaluation import coded_episodes, evaluate_prior
from worldmodel.recipe import Recipe, learn_prior
from worldmodel.world import WorldModel

DRAWS = 20
Order = Literal["diagonal", "raster"]


@dataclass
class Args:
    model: str
    """Whose tokenizer."""
    train_store: str
    store: str
    """Held-out episodes."""
    steps: int = 1000
    runs: Path = Path("runs/order")
    """Folder for the two trainings."""
    out: Path = Path(__file__).parent / "order.json"


def main(args: Args) -> None:
    video = WorldModel.from_pretrained(args.model).video
    training, heldout = EpisodeStore.open(args.train_store), EpisodeStore.open(args.store)
    report = {}
    for order in get_args(Order):
        world = learn_prior(
            training, video, Recipe(order=order, prior_steps=args.steps, outcome_steps=1), args.runs / order
        )
        episodes, few = coded_episodes(heldout, world), coded_episodes(training, world, limit=1)
        bits = evaluate_prior(world, episodes, few)["bits_per_code"]
        report[order] = {"bits_per_code": bits, "head_ms_a_frame": {b: draw_ms(world, b) for b in (1, 64)}}
        print(order, report[order])
    about = {"model": args.model, "train_store": args.train_store, "store": args.store, "steps": args.steps}
    args.out.write_text(json.dumps({**about, **report}, indent=2) + "\n")


@torch.no_grad()
def draw_ms(world: WorldModel, batch: int) -> float:
    """Milliseconds a frame to draw codes, median of DRAWS."""
    rows, columns = world.code_shape
    context = torch.randn(batch, world.config.dynamics.head_width, rows, columns)
    times = []
    for _ in range(DRAWS):
        began = time.perf_counter()
        world.dynamics.head.draw(context, torch.rand(batch, rows * columns), 1.0)
        times.append((time.perf_counter() - began) / batch * 1000)
    return sorted(times)[DRAWS // 2]


if __name__ == "__main__":
    main(tyro.cli(Args))

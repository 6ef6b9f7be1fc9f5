"""What the diagonal order costs in bits a code, and what it saves in time, against the paper's raster order.

    python benchmarks/order.py --model dmlab-seekavoid --train-store stores/arena_train --store stores/arena_test

Both orders get the same tokenizer and a prior of their own, trained from scratch for the same steps on the same
windows; then both predict the same held-out episodes, and draw frames. The figures go where those of `worldmodel
measure` are, OUT/world.json and world.md.
"""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import torch

from scripts.command import run_script, words
from scripts.world_report import read_benchmarks, write_benchmarks
from worldmodel.episodes import EpisodeStore
from worldmodel.evaluation import check_store, coded_episodes, evaluate_prior
from worldmodel.folders import model_name
from worldmodel.metrics import Result
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
    steps: int = 400
    out: Path = Path(__file__).parent


def main(args: Args) -> None:
    name = model_name(args.model)
    given = WorldModel.from_pretrained(args.model)
    training, heldout = EpisodeStore.open(args.train_store), EpisodeStore.open(args.store)
    for store in (training, heldout):
        check_store(store, given)
    episodes, few = coded_episodes(heldout, given), coded_episodes(training, given, limit=1)
    orders: Result = {"steps": args.steps}
    for order in get_args(Order):
        recipe = Recipe(order=order, prior_steps=args.steps, dream_steps=0, outcome_steps=1)
        with TemporaryDirectory() as folder:
            world = learn_prior(training, given.video, recipe, Path(folder))
        bits = evaluate_prior(world, episodes, few)["bits_per_code"]
        orders[order] = {"bits_per_code": bits, "head_ms_a_frame": {str(b): draw_ms(world, b) for b in (1, 64)}}
        print(order, orders[order])
    models = read_benchmarks(args.out)
    entry = models.get(name, {})
    commands = {**entry.get("commands", {}), "orders": shlex.join(["python", "benchmarks/order.py", *words(args)])}
    models[name] = {**entry, "orders": orders, "commands": commands}
    write_benchmarks(args.out, models)


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
    run_script(main, Args)

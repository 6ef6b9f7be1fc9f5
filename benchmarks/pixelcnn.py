"""What caching what is known of a grid saves a PixelCNN that draws one: seconds a batch, in both orders.

    OMP_NUM_THREADS=1 python benchmarks/pixelcnn.py

Of the prior of `dmlab-images` in its shape, with random weights, in float32. "Naive" is a forward pass over the whole
grid for each place, or each anti-diagonal: one pass, timed, as often as it would be made. The fastest of REPEATS each.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch

from scripts.command import run_script
from scripts.output import room_for_file
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.pixelcnn import PixelCNN, PixelCNNConfig

Order = Literal["raster", "diagonal"]
SHAPE = PixelCNNConfig((21, 21), 512)
REPEATS = 3


@dataclass
class Args:
    batch: int = 16
    out: Path = Path(__file__).parent / "pixelcnn.json"


@torch.no_grad()
def main(args: Args) -> None:
    if args.batch < 1:
        raise UserError(f"A batch is 1 or more grids, not {args.batch}.")
    room_for_file(args.out)
    rows, columns = SHAPE.code_shape
    passes: dict[Order, int] = {"raster": rows * columns, "diagonal": rows + columns - 1}
    result: dict[str, float | dict[str, float]] = {"batch": args.batch, "threads": torch.get_num_threads()}
    for order in get_args(Order):
        model = PixelCNN(replace(SHAPE, order=order)).eval()
        uniforms = torch.rand(args.batch, 1, rows, columns)
        codes, _ = model.sample(uniforms)
        cached = fastest(partial(model.sample, uniforms))
        naive = passes[order] * fastest(partial(model, codes))
        result[order] = {"cached": cached, "naive": naive}
        print(f"{order}: {cached:.2f} s a batch, naive {naive:.1f} s, {naive / cached:.0f} times as long")
    write_text(args.out, json.dumps(result, indent=2) + "\n")


def fastest(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    run_script(main, Args)

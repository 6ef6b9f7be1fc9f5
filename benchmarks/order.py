"""What the diagonal order costs in bits a code, and what it saves in time, against the paper's raster order.

    python benchmarks/order.py --model dmlab-seekavoid --train-store stores/arena_train --store stores/arena_test

Both orders get the same trained trunk, frozen, and a head of their own, trained from scratch for the same steps on the
same windows; then both predict the same held-out episodes, and draw the same number of frames in turns.
"""

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro

from worldmodel.dynamics import CodeHead
from worldmodel.episodes import EpisodeStore
from worldmodel.evaluation import coded_episodes, stream_bits
from worldmodel.recipe import encode_store
from worldmodel.windows import WindowDataset
from worldmodel.world import WorldModel, fast_layout

WINDOW, ROWS, DRAWS = 16, 3, 20


@dataclass
class Args:
    model: str
    train_store: str
    store: str
    steps: int = 600
    out: Path = Path(__file__).parent / "order.json"


def main(args: Args) -> None:
    world = WorldModel.from_pretrained(args.model)
    training = EpisodeStore.open(args.train_store)
    dataset = WindowDataset(training, WINDOW, size=args.steps * ROWS, frames=encode_store(world.video, training)[0])
    episodes = coded_episodes(EpisodeStore.open(args.store), world)
    report = {}
    for order in ("diagonal", "raster"):
        world.dynamics.head = train_head(world, order, dataset, args.steps)
        bits = torch.cat([stream_bits(world.dynamics, e.codes[None], e.actions[None])[0] for e in episodes])
        report[order] = {"bits_per_code": float(bits.mean())} | {
            f"head_ms_a_frame_at_batch_{batch}": draw_ms(world, batch) for batch in (1, 64)
        }
        print(order, report[order])
    args.out.write_text(json.dumps({"steps": args.steps, "model": args.model, **report}, indent=2) + "\n")


def train_head(world: WorldModel, order: str, dataset: WindowDataset, steps: int) -> CodeHead:
    torch.manual_seed(0)
    head = fast_layout(CodeHead(replace(world.config.dynamics, order=order)))
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 50) * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.03)
        items = [dataset[step * ROWS + i] for i in range(ROWS)]
        codes = torch.stack([item["frames"] for item in items]).long()  # [B, T, h, w]
        actions = torch.stack([item["actions"] for item in items])
        with torch.autocast("cpu", torch.bfloat16):
            memory, contexts = world.dynamics.blank(ROWS), []
            with torch.no_grad():
                for t in range(WINDOW - 1):
                    memory, context = world.dynamics.advance(memory, codes[:, t], actions[:, t])
                    contexts.append(context)
            target = codes[:, 1:].flatten(0, 1)
            logits = head(torch.stack(contexts, 1).flatten(0, 1), target)
        F.cross_entropy(logits.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad()
    return head.eval()


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

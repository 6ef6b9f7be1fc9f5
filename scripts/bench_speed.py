"""`worldmodel bench-speed`: steps a second, where the time goes, and what the machine could do."""

import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from envs.imagined_vector import ImaginedVectorEnv
from envs.observations import Obs
from scripts.command import command_line
from worldmodel.allocator import keep_freed_memory
from worldmodel.benchmark.report import table
from worldmodel.dream_evaluation import resident
from worldmodel.dynamics import DynamicsConfig
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.folders import model_names
from worldmodel.metrics import Result
from worldmodel.precision import fast_dtype
from worldmodel.speed import Stage, calls_per_second, matmul_rate, naive_ratio, precision_cost, stages
from worldmodel.state import ContextBank
from worldmodel.video import video_preset
from worldmodel.world import WorldConfig, WorldModel, to_dream_in

PAPER = "paper"
BATCHES = (1, 16, 64, 256)
STAGED = (1, 64)  # batches whose steps are taken apart
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Args:
    """Steps a second of imagined environments, the stages of a step, memory, and the ratio to a naive sampler.

    On two cores about two minutes a model. Nothing else should run.
    """

    models: tuple[str, ...] = ("dmlab-seekavoid", "dmlab-explore", "doom-take-cover", PAPER)
    """Bundled names, folders, Hub ids; "paper" is the paper's 84x84 -> 21x21 codes, untrained."""
    dtype: Literal["bfloat16", "float32"] | None = None
    """Of the weights; the one that this machine multiplies faster, if none is given."""
    seconds: float = 2.0
    """How long each number is measured."""
    steps: int = 1000
    """Length of the dreams, 64 at once, that show whether memory stays flat; of the first model."""
    out: Path | None = None
    """Write FOLDER/speed.json and FOLDER/speed.md."""


def main(args: Args) -> None:
    if args.steps < 10 or not args.seconds > 0 or not args.models:
        raise UserError("Speed is measured of one model or more, for some seconds, and memory along 10 steps or more.")
    names = model_names(args.models)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    dtype = fast_dtype() if args.dtype is None else DTYPES[args.dtype]
    worlds = {
        model: paper_world(dtype) if model == PAPER else WorldModel.from_pretrained(model, dtype=dtype)
        for model in args.models
    }
    report: Result = {
        "command": command_line("bench-speed", args),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "matmul_gflop_per_second": matmul_rate(dtype),
        "models": {},
    }
    for name, (model, world) in zip(names, worlds.items(), strict=True):
        measured = report["models"][name] = _measure(world, args.seconds)
        if model == args.models[0]:
            measured["resident_mb_after_steps"] = _memory(world, args.steps)
        if model != PAPER and dtype != torch.float32:
            measured["kl_bits_per_code_from_float32"] = precision_cost(WorldModel.from_pretrained(model), world)
        print(_page({**report, "models": {name: measured}}))
        if args.out:
            write_text(args.out / "speed.json", json.dumps(report, indent=1) + "\n")
            write_text(args.out / "speed.md", "# How fast it dreams\n\n" + _page(report))


def paper_world(dtype: torch.dtype) -> WorldModel:
    """The paper's configuration with random weights: they cost what trained ones do."""
    video = video_preset("paper", (84, 84))
    dynamics = DynamicsConfig(video.code_shape, video.num_codes, n_actions=9, reward_values=(-1.0, 0.0, 1.0))
    starts = ContextBank(
        torch.randint(video.num_codes, (8, 2, *video.code_shape)), torch.zeros(8, 1, dtype=torch.int64)
    )
    world = WorldModel(WorldConfig(video, dynamics, tuple(map(str, range(9))), fps=15), starts)
    torch.nn.init.constant_(world.dynamics.outcome.termination.bias, -20.0)  # it dreams on
    return to_dream_in(world, "cpu", dtype).eval().requires_grad_(False)


def _measure(world: WorldModel, seconds: float) -> Result:
    speeds = []
    for batch in BATCHES:
        row: Result = {"batch": batch}
        for obs in ("pixels", "latents"):
            row[obs] = _steps_per_second(world, batch, obs, seconds)
        row["peak_mb"] = _peak_mb()
        speeds.append(row)
    return {
        "steps_per_second": speeds,
        "stages": {batch: [asdict(stage) for stage in stages(world, batch, seconds)] for batch in STAGED},
        "times_faster_than_naive": {batch: naive_ratio(world, batch) for batch in STAGED},
    }


def _steps_per_second(world: WorldModel, batch: int, obs: Obs, seconds: float) -> float:
    """Of an environment with random actions, once warm."""
    envs, choose = ImaginedVectorEnv(world, batch, obs=obs, horizon=10**9), np.random.default_rng(0)
    envs.reset(seed=0)
    return batch * calls_per_second(lambda: envs.step(choose.integers(world.n_actions, size=batch)), seconds)


def _memory(world: WorldModel, steps: int) -> dict[int, float]:
    """Resident memory, MB, along 64 dreams of `steps` steps."""
    envs, choose = ImaginedVectorEnv(world, 64, horizon=10**9), np.random.default_rng(0)
    envs.reset(seed=0)
    found = {}
    for step in range(1, steps + 1):
        envs.step(choose.integers(world.n_actions, size=64))
        if step in (steps // 10, steps // 2, steps) and (held := resident()) is not None:
            found[step] = held / 2**20
    return found


def _peak_mb() -> float:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _page(report: Result) -> str:
    rate = report["matmul_gflop_per_second"]
    parts = [
        f"Made by `{report['command']}`, {report['threads']} threads, {report['dtype']}; a 2048 x 2048 matrix product "
        f"reaches {rate:.0f} GFLOP/s here.",
    ]
    for name, measured in report["models"].items():
        parts += [f"## {name}", _speeds(measured), *_stage_tables(measured, rate)]
        if "kl_bits_per_code_from_float32" in measured:
            kl = measured["kl_bits_per_code_from_float32"]
            parts.append(f"The distribution of {report['dtype']} is {kl:.4f} bits a code from that of float32 (KL).")
        if "resident_mb_after_steps" in measured:
            kept = measured["resident_mb_after_steps"].items()
            parts.append(
                "64 dreams, resident memory: " + ", ".join(f"{mb:.0f} MB after {n} steps" for n, mb in kept) + "."
            )
    return "\n\n".join(parts) + "\n"


def _speeds(measured: Result) -> str:
    naive = measured["times_faster_than_naive"]
    return table(
        ["dreams at once", "steps/s, pixels", "steps/s, latents", "peak memory so far, MB", "x naive sampler"],
        [
            [row["batch"], f"{row['pixels']:.0f}", f"{row['latents']:.0f}", f"{row['peak_mb']:.0f}"]
            + [f"{naive[row['batch']]:.0f}" if row["batch"] in naive else "–"]
            for row in measured["steps_per_second"]
        ],
    )


def _stage_tables(measured: Result, rate: float) -> list[str]:
    """Each stage beside the time that its arithmetic alone would take at the rate of a large matrix product."""
    found = []
    for batch, items in measured["stages"].items():
        rows = []
        for stage in (Stage(**item) for item in items):
            gflop = max(stage.gflop, 0.0)  # what is left of a difference may be a rounding below it
            floor = 1000 * gflop / rate
            times = f"{stage.milliseconds / floor:.1f}" if floor > 1e-3 else "–"
            rows.append([stage.name, f"{stage.milliseconds:.2f}", f"{gflop:.2f}", f"{floor:.2f}", times])
        found.append(table([f"stage, batch {batch}", "ms", "GFLOP", "floor, ms", "times the floor"], rows))
    return found

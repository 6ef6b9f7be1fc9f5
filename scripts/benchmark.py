"""`worldmodel benchmark`: how far can a dream be trusted?"""

import importlib
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.utils.tensorboard import SummaryWriter

from scripts.command import command_line
from scripts.curves import draw_curves
from scripts.device import FASTEST, Device, check_device
from scripts.unused import refuse_unused
from worldmodel.benchmark.benchmark import Benchmarked, Weights, run_benchmark
from worldmodel.benchmark.predictors import Predictor, WorldPredictor
from worldmodel.benchmark.protocols import PROTOCOLS, choose_contexts
from worldmodel.benchmark.report import markdown
from worldmodel.benchmark.running import LOOKED_AT, Truth, shown_contexts
from worldmodel.benchmark.weights import Fid, Fvd, Lpips
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError, require
from worldmodel.files import strangers, write_text
from worldmodel.folders import model_name
from worldmodel.metrics import Result
from worldmodel.pictures import strips, titled, write_film, write_png
from worldmodel.progress import track
from worldmodel.same_world import same_actions
from worldmodel.sampling import check_temperature
from worldmodel.world import WorldModel


@dataclass
class Args:
    """Measure models and baselines on held-out episodes, at every horizon.

    Writes OUT/report.json for programs, OUT/report.md for people, curves.png, contact sheets, films beside the truth
    and TensorBoard logs. All models see the same contexts and seeds. Run the same command again to go on after an
    interruption.
    """

    store: str
    """Held-out episodes."""
    out: Path
    """Folder of the report."""
    model: tuple[str, ...] = ()
    """World models: bundled names, folders or Hub ids."""
    predictor: tuple[str, ...] = ()
    """Other models, each as MODULE:FACTORY; the factory is called without arguments and returns a `Predictor`."""
    protocol: Literal["paper", "teco", "long"] = "paper"
    """"paper": 6 frames given, 10 imagined; "teco": 144 and 156 (and 36 and 264 for FVD); "long": 16 and 1,000."""
    samples: int = 4
    """Predictions from each context, of models; baselines have one."""
    contexts: int = 48
    """Places in the store to predict from, spread over its episodes."""
    train_store: str | None = None
    """The episodes that the models were trained on: for the mean frame, the nearest neighbour and the action judge."""
    loops: str | None = None
    """A store in which the agent turns and turns back, for consistency; without it such turns are sought in STORE."""
    temperature: float = 1.0
    """Of the world models' dreams."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the world models' weights."""
    device: Device = FASTEST
    """Where the world models dream; all is measured on the CPU."""
    lpips: Path | None = None
    """Weights for LPIPS: vgg16.pt of StyleGAN2-ADA (TorchScript)."""
    fid: Path | None = None
    """Weights for FID: inception-2015-12-05.pt of StyleGAN2-ADA (TorchScript)."""
    fvd: Path | None = None
    """Weights for FVD: i3d_torchscript.pt of StyleGAN-V (TorchScript)."""
    seed: int = 0


def main(args: Args) -> None:
    require("torchmetrics", "metrics")
    require("matplotlib", "metrics")
    if min(args.samples, args.contexts) < 1 or args.seed < 0:
        raise UserError("Samples and contexts are 1 or more, and the seed is 0 or more.")
    check_temperature(args.temperature)
    check_device(args.device)
    if not args.model:
        refuse_unused(args, "temperature", "dtype", "device", where="without a --model")
    if not args.model and not args.predictor:
        refuse_unused(args, "samples", where="without a --model or --predictor")
    if strangers(args.out) and not (args.out / "parts" / "of.json").is_file():
        raise UserError(f"{args.out} holds something that is not a benchmark; choose another --out.")
    store = EpisodeStore.open(args.store)
    training, loops = (None if s is None else EpisodeStore.open(s) for s in (args.train_store, args.loops))
    for other in (training, loops):
        if other is None:
            continue
        if not len(other):
            raise UserError(f"{other.address} is empty: record or import some episodes first.")
        meanings = (s.provenance["action_meanings"] for s in (store, other))
        if other.frame_shape != store.frame_shape or not same_actions(*meanings):
            raise UserError(f"{other.address} is of another world than {store.address}: its frames or actions differ.")
    for kind, path in ((Lpips, args.lpips), (Fid, args.fid), (Fvd, args.fvd)):
        try:
            if path is not None:
                kind(path)
        except UserError as error:  # better known now than after hours
            print(f"{error} The report comes without what they measure.", file=sys.stderr)
    choose_contexts(store, PROTOCOLS[args.protocol], args.contexts)  # before anything is written: is it long enough?
    predictors = [_world(name, args) for name in args.model] + [_foreign(path) for path in args.predictor]
    done = run_benchmark(
        predictors,
        store,
        PROTOCOLS[args.protocol],
        args.out,
        samples=args.samples,
        contexts=args.contexts,
        training=training,
        loops=loops,
        weights=Weights(args.lpips, args.fid, args.fvd),
        seed=args.seed,
        progress=lambda work: track(work, "Measuring"),
    )
    report = {**done.report, "command": command_line("benchmark", args)}
    write_text(args.out / "report.json", json.dumps(report, allow_nan=False) + "\n")
    write_text(args.out / "report.md", markdown(report))
    draw_curves(report, args.out / "curves.png")
    _draw(done, args.out, store.provenance["fps"])
    _log(done.report["predictors"], args.out / "tensorboard")
    for name, why in {**report["not_measured"], **report["skipped"]}.items():
        print(f"Not measured: {name}: {why}")
    print(f"The report is in {args.out}: report.md, report.json, curves.png, contact sheets and films.")


def _world(name: str, args: Args) -> Predictor:
    world = WorldModel.from_pretrained(name, device=args.device, dtype=getattr(torch, args.dtype))
    return WorldPredictor(model_name(name), world, temperature=args.temperature)


def _foreign(path: str) -> Predictor:
    """What `MODULE:FACTORY` makes."""
    module, _, factory = path.partition(":")
    if not module or not factory:
        raise UserError(f"--predictor is MODULE:FACTORY, not {path}.")
    try:
        predictor: Predictor = getattr(importlib.import_module(module), factory)()
    except Exception as error:  # somebody else's code
        why = str(error).partition("\n")[0]
        raise UserError(f"--predictor {path} cannot be made: {type(error).__name__}: {why}.") from error
    if not isinstance(getattr(predictor, "name", None), str) or not callable(getattr(predictor, "predict", None)):
        raise UserError(f"What --predictor {path} makes has no name and no predict: see docs/foreign_model.py.")
    return predictor


def _draw(done: Benchmarked, out: Path, fps: float) -> None:
    """A contact sheet and a film of each shown context: the truth above, or left of, every prediction."""
    names = [Truth.name, *(name for name in done.shown if name != Truth.name)]
    for i, number in enumerate(shown_contexts(len(done.contexts))):
        context = done.contexts[number]
        rows = {name: torch.from_numpy(done.shown[name][i]) for name in names}
        rows[Truth.name][context.known :] = 0  # nobody knows what would have come
        length = len(rows[Truth.name])
        picked = [h - 1 for h in LOOKED_AT if h <= length]
        given = context.frames[max(context.given - 3, 0) : context.given]
        ahead = ", ".join(str(h + 1) for h in picked)
        sheet = [(f"{name}: {ahead} steps ahead", torch.cat([given, row[picked]])) for name, row in rows.items()]
        write_png(out / f"context_{i}.png", strips(sheet, given=len(given)))
        columns = [titled(name, torch.cat([context.frames[: context.given], row])) for name, row in rows.items()]
        write_film(out / f"context_{i}.mp4", torch.cat(columns, 2), fps, scale=2)


def _log(predictors: Result, folder: Path) -> None:
    """Every metric by horizon, one TensorBoard run a predictor, in place of an earlier one's."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, values in predictors.items():
        with SummaryWriter(str(folder / re.sub(r"[^\w ,.-]+", "-", name).strip("."))) as log:
            for metric, by_horizon in values["metrics"].items():
                for horizon, at in by_horizon.items():
                    log.add_scalar(metric, at["mean"], int(horizon))

"""`worldmodel measure`: measure a model on held-out episodes."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from envs.dmlab_fruit import FRUIT
from scripts.command import command_line
from scripts.device import FASTEST, Device, check_device
from scripts.world_report import read_benchmarks, write_benchmarks
from worldmodel.digest import digest
from worldmodel.dream_evaluation import (
    CONTEXT,
    HORIZON,
    WINDOW,
    evaluate_ends,
    evaluate_long_dream,
    evaluate_outcomes,
    evaluate_rollouts,
)
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError, require
from worldmodel.evaluation import Masks, check_store, coded_episodes, evaluate_prior, evaluate_tokenizer
from worldmodel.folders import model_name
from worldmodel.metrics import Result
from worldmodel.probe import Foresight, evaluate_sign
from worldmodel.progress import track
from worldmodel.speed import measure_speed
from worldmodel.world import WorldModel

Part = Literal["tokenizer", "prior", "sign", "rollouts", "outcomes", "long-dream", "speed"]


@dataclass
class Args:
    """Measure a model on held-out episodes: OUT/world.json for programs and OUT/world.md for people.

    Both hold every model measured so far with this OUT; measuring one again replaces what is measured anew.
    """

    model: str
    """The model: a bundled name, a folder, or a Hub id."""
    store: str
    """Held-out episodes."""
    train_store: str
    """The episodes that it was trained on: for the baselines and the probes."""
    out: Path
    """Folder of the report."""
    name: str | None = None
    """What to call the model in the report; if not given, its own name, or RUN for a folder RUN/model."""
    also: str | None = None
    """More held-out episodes, for what is counted in rewards ("sign" and "outcomes") and therefore needs many."""
    fruit: tuple[Literal["apples", "lemons"], ...] = ()
    """DeepMind Lab: what fruit there is, to measure how well it is kept."""
    parts: tuple[Part, ...] = get_args(Part)
    """What to measure."""
    long_dream_steps: int = 10_000
    """Length of the long dream, 10 or more: its first and last tenths are compared."""
    device: Device = FASTEST


class Evaluation:
    """The parts by name; what several parts need is read once."""

    def __init__(self, args: Args) -> None:
        self.args = args
        self.world = WorldModel.from_pretrained(args.model, device=args.device)
        self.stores = [EpisodeStore.open(address) for address in (args.store, args.also) if address]
        self.training = EpisodeStore.open(args.train_store)
        self.masks: Masks = {name: FRUIT[name] for name in args.fruit}
        for store in (*self.stores, self.training):
            check_store(store, self.world)
        for part, horizon, stores in (("rollouts", HORIZON, self.stores[:1]), ("outcomes", WINDOW, self.stores)):
            if part in args.parts and max(store.lengths.max() for store in stores) + 1 < CONTEXT + horizon:
                raise UserError(
                    f"No episode of {args.store} has {CONTEXT + horizon} frames: record longer ones, or leave {part} "
                    "out of --parts."
                )
        self.episodes = coded_episodes(self.stores[0], self.world)

    def tokenizer(self) -> Result:
        return evaluate_tokenizer(self.world.video, self.episodes, self.masks)

    def prior(self) -> Result:
        return evaluate_prior(self.world, self.episodes, coded_episodes(self.training, self.world, limit=40))

    def sign(self) -> Result | None:
        """None where rewards have one sign only."""
        rewards = self.training.flat("rewards")
        if not (rewards > 0).any() or not (rewards < 0).any():
            return None
        training = Foresight.read(self.training, self.world.video)
        heldout = Foresight.read(self.stores[0], self.world.video)
        for store in self.stores[1:]:
            heldout += Foresight.read(store, self.world.video, first_episode=len(self.stores[0]))
        return evaluate_sign(training, heldout, self.world.video.quantizer.embedding.detach().cpu())

    def rollouts(self) -> list[Result]:
        """As likely as the prior says, and keeping to what it thinks likeliest, which PSNR rewards."""
        return [evaluate_rollouts(self.world, self.episodes, self.masks, temperature=t) for t in (1.0, 0.5)]

    def outcomes(self) -> Result:
        more = [episode for store in self.stores[1:] for episode in coded_episodes(store, self.world)]
        episodes = self.episodes + more
        return {**evaluate_outcomes(self.world, episodes), "ends": evaluate_ends(self.world, episodes)}

    def long_dream(self) -> Result:
        return evaluate_long_dream(self.world, self.episodes, steps=self.args.long_dream_steps)

    def speed(self) -> Result:
        measured = {}
        for dtype in (torch.float32, torch.bfloat16):
            world = WorldModel.from_pretrained(self.args.model, device=self.args.device, dtype=dtype)
            measured[str(dtype).removeprefix("torch.")] = [measure_speed(world, batch) for batch in (1, 64)]
        return {
            "device": self.args.device,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            **measured,
        }


def main(args: Args) -> None:
    require("torchmetrics", "metrics")
    check_device(args.device)
    if not args.parts:
        raise UserError(f"--parts are some of {', '.join(get_args(Part))}.")
    if args.long_dream_steps < 10:
        raise UserError(f"--long-dream-steps must be 10 or more, not {args.long_dream_steps}.")
    models = read_benchmarks(args.out)
    evaluation = Evaluation(args)
    args.out.mkdir(parents=True, exist_ok=True)  # before the work, so that a folder that cannot be is known by now
    measures: dict[str, Callable[[], Result | list[Result] | None]] = {
        "tokenizer": evaluation.tokenizer,
        "prior": evaluation.prior,
        "sign": evaluation.sign,
        "rollouts": evaluation.rollouts,
        "outcomes": evaluation.outcomes,
        "long-dream": evaluation.long_dream,
        "speed": evaluation.speed,
    }
    name = args.name or model_name(args.model)
    about = {
        "weights": digest(evaluation.world.state_dict().values()),
        "parameters": sum(p.numel() for p in evaluation.world.parameters()),
        "episodes": len(evaluation.episodes),
        "world": evaluation.stores[0].provenance["env_id"],
        "env_kwargs": evaluation.stores[0].provenance.get("env_kwargs", {}),
    }
    if models.get(name, about).get("weights") != about["weights"]:
        print(f"The numbers of {name} so far were another model's; they are replaced.")
        del models[name]
    left = list(args.parts)
    try:
        for part in track(args.parts, "Measuring"):
            entry = models.get(name, {})
            # Parts may be measured with other settings.
            commands = {**entry.get("commands", {}), part: command_line("measure", args)}
            models[name] = {**entry, **about, part: measures[part](), "commands": commands}
            write_benchmarks(args.out, models)  # after each part: an interruption loses one
            left.remove(part)
    except KeyboardInterrupt:
        print(f"Stopped; the same command with --parts {' '.join(left)} measures the rest.")
        raise
    print(f"The report is in {args.out / 'world.md'} and {args.out / 'world.json'}.")

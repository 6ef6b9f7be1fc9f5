"""`worldmodel demo`: dreams in DeepMind Lab, then the whole loop live in Doom, in a few minutes."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scripts import collect, imagine, train
from worldmodel.dream_evaluation import evaluate_rollouts
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import require
from worldmodel.evaluation import coded_episodes, evaluate_tokenizer
from worldmodel.files import write_text
from worldmodel.metrics import Result
from worldmodel.precision import fast_dtype
from worldmodel.recipe import Recipe
from worldmodel.speed import measure_speed
from worldmodel.world import WorldModel

LAB, MAZE, DOOM = "dmlab-seekavoid", "dmlab-explore", "worldmodel/Doom-v0"
HELDOUT_SEED = 1_000_000
SHOWN = (1, 2, 5, 10)  # horizons of the table


@dataclass
class Args:
    """Dream in DeepMind Lab with a bundled model; then play Doom, learn from it, and dream that, all in one go."""

    out: Path = Path("runs/demo")
    """Folder for pictures, films, the recording, the model and report.json."""
    episodes: int = 24
    """Doom episodes to learn from."""
    tokenizer_steps: int = 450
    prior_steps: int = 350
    outcome_steps: int = 150


def main(args: Args) -> None:
    require("vizdoom", "doom")
    require("torchmetrics", "metrics")
    console, began = Console(), time.monotonic()
    console.rule("A dream in DeepMind Lab")
    lab, lab_speed = _lab(args)
    console.rule("Doom: play, learn, dream, compare")
    doom = _doom(args)
    report = {"dmlab": {"model": lab, "speed": lab_speed}, "doom": doom, "seconds": time.monotonic() - began}
    write_text(args.out / "report.json", json.dumps(report, indent=2) + "\n")
    console.rule()
    console.print(_speeds(lab_speed))
    console.print(_horizons(doom["rollouts"]))
    console.print(
        f"Done in {report['seconds']:.0f} s. Look at:\n"
        f"  {args.out}/dmlab/figure7.png     the paper's Figure 7: six frames given, ten imagined\n"
        f"  {args.out}/dmlab/dream.mp4       a longer dream in DeepMind Lab\n"
        f"  {args.out}/doom/dream/strip.png  Doom: what happened, and what the model trained just now dreamed\n"
        f"  {args.out}/report.json           all numbers\n"
        "Where to go next: `worldmodel --help`, or make your own world from your own episodes as the README shows."
    )


def _lab(args: Args) -> tuple[str, list[Result]]:
    out = args.out / "dmlab"
    imagine.main(imagine.Args(model=MAZE, out=out, figure7=True))
    imagine.main(imagine.Args(model=LAB, out=out, actions="forward*20, look right*20, forward*20, look left*20"))
    world = WorldModel.from_pretrained(LAB, dtype=fast_dtype())
    return LAB, [measure_speed(world, batch, seconds=3) for batch in (1, 64)]


def _doom(args: Args) -> Result:
    out = args.out / "doom"
    training, heldout = str(out / "train"), str(out / "heldout")
    collect.main(collect.Args(DOOM, training, args.episodes, num_envs=2))
    collect.main(collect.Args(DOOM, heldout, 4, num_envs=2, seed=HELDOUT_SEED))
    recipe = Recipe(
        tokenizer_steps=args.tokenizer_steps,
        prior_steps=args.prior_steps,
        dream_steps=0,  # the dreams to come are short
        outcome_steps=args.outcome_steps,
        prior_batch=2,  # half a second a step where the CPU has no matrix units for bfloat16
    )
    train.main(train.Args(training, out / "run", recipe=recipe))
    model = out / "run" / "model"
    longest = int(EpisodeStore.open(heldout).lengths.argmax())
    imagine.main(imagine.Args(model=str(model), out=out / "dream", store=heldout, episode=longest, start=20))
    world = WorldModel.from_pretrained(model)
    episodes = coded_episodes(EpisodeStore.open(heldout), world)
    return {
        "frames": int(EpisodeStore.open(training).lengths.sum()),
        "tokenizer": evaluate_tokenizer(world.video, episodes, {}),
        "rollouts": evaluate_rollouts(world, episodes, {}, horizon=max(SHOWN), every=20, samples=1),
    }


def _speeds(speeds: list[Result]) -> Table:
    table = Table("dreams at once", "imagined frames a second", title=f"{LAB}: how fast it dreams here")
    for speed in speeds:
        table.add_row(str(speed["batch"]), f"{speed['steps_per_second']:.0f}")
    return table


def _horizons(rollouts: Result) -> Table:
    title = "Doom: PSNR (dB) against what really happened, under the same actions"
    table = Table("steps ahead", *map(str, SHOWN), title=title)
    for label, name in (("the dream", "psnr"), ("the last given frame, held", "psnr_still")):
        table.add_row(label, *(f"{rollouts[name][h - 1]:.1f}" for h in SHOWN))
    return table

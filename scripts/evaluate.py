"""`worldmodel evaluate`: what an agent earns, in a real world or in dreams."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from agents.actors import Actor, ConstantActor, RandomActor
from agents.agent import Agent
from agents.evaluation import Outcome, Score, dream, outcome, play
from envs.recording import action_meanings, make_world
from scripts.command import command_line
from scripts.unused import refuse_unused
from scripts.world_choice import WorldChoice
from worldmodel.errors import UserError
from worldmodel.files import check_replaceable, new_folder, write_text
from worldmodel.folders import model_name
from worldmodel.pictures import write_film
from worldmodel.progress import track
from worldmodel.state import generators
from worldmodel.world import WorldModel

GIVEN = 6  # frames of a real episode that its dream is shown


@dataclass
class Args:
    """Play whole episodes and write OUT/evaluation.json: `episodes`, `mean`, `std`, `ci95`, `unit`, and each return.

    In a real world, films of the best, the median and the worst episode come beside it. Where the agent has a model,
    they show the real world on the left and on the right what the model dreams under the same actions.
    """

    agent: str
    """Who plays: a bundled agent's name, a folder, a .zip that Stable-Baselines3 saved, `random`, or `always:ACTION`
    with the name of an action."""
    out: Path
    """Folder of the report: a new one, that is there once it is whole."""
    episodes: int = 100
    seed: int = 2_000_000
    """Episode i is reset with the seed `seed + i`."""
    worlds: int = 2
    """How many copies of a real world are played at once."""
    max_steps: int | None = None
    """Truncate real episodes after so many steps: needed where the world has no end of its own."""
    world: Annotated[WorldChoice, tyro.conf.arg(name="")] = field(default_factory=WorldChoice)


def main(args: Args) -> None:
    _check(args)
    model = args.world.load()
    seeds = list(range(args.seed, args.seed + args.episodes))
    if args.world.imagined:
        assert model is not None
        actor = _actor(args, model.frame_shape, model.action_meanings, model)
        if not isinstance(actor, Agent):
            actor.obs = "latents"  # nothing needs to be drawn for those who do not look
        with new_folder(args.out.resolve(), ()) as folder:
            said = _write(args, folder, list(_dreams(args, actor, model, seeds)), unit="reward")
        print(said)
        return
    make = partial(make_world, args.world.env, args.world.settings())
    world = make()
    unit, fps = world.metadata.get("unit", "reward"), float(world.metadata.get("render_fps") or 30)
    actor = _actor(args, world.observation_space.shape or (), action_meanings(world), model)
    world.close()
    if model is not None and actor.world is None:
        raise UserError(f"{args.agent} does not see through a model: leave out --model.")
    with new_folder(args.out.resolve(), ()) as folder:
        episodes = play(actor, make, seeds, worlds=args.worlds, max_steps=args.max_steps)
        outcomes = [outcome(episode) for episode in _watched(episodes, len(seeds))]
        said = _write(args, folder, outcomes, unit)
        ranked = sorted(outcomes, key=lambda o: o.earned)
        shown = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
        replays = play(actor, make, [o.seed for o in shown.values()], worlds=args.worlds, max_steps=args.max_steps)
        for name, episode in zip(shown, replays, strict=True):
            frames = torch.from_numpy(episode.frames)
            if actor.world is not None:
                frames = _beside_its_dream(frames, torch.from_numpy(episode.actions), actor.world)
            write_film(folder / f"{name}.mp4", frames, fps)
    print(said)


def _check(args: Args) -> None:
    """Raise `UserError` for arguments that cannot be, that would do nothing, or whose OUT holds something."""
    if args.episodes < 1 or args.worlds < 1 or args.seed < 0 or (args.max_steps is not None and args.max_steps < 1):
        raise UserError("--episodes, --worlds and --max-steps must be 1 or more, and --seed 0 or more.")
    if args.world.imagined:
        refuse_unused(args, "worlds", "max_steps", where="in dreams")
    else:
        refuse_unused(args.world, "horizon", "temperature", where="in a real world")
    args.world.check()
    check_replaceable(args.out.resolve(), ())


def _actor(args: Args, frame_shape: tuple[int, ...], meanings: list[str], model: WorldModel | None) -> Actor:
    """Who plays. Raises `UserError` for an agent that there is not, or of another world."""
    if args.agent == "random":
        return RandomActor(len(meanings))
    kind, colon, action = args.agent.partition(":")
    if colon and kind == "always":
        if action not in meanings:
            raise UserError(f"There is no action {action!r} here; the actions are {', '.join(meanings)}.")
        return ConstantActor(meanings.index(action))
    agent = Agent.load(args.agent, world=model, device=args.world.device)
    agent.check_fits(frame_shape, meanings)
    return agent


def _dreams(args: Args, actor: Actor, model: WorldModel, seeds: list[int]) -> Iterator[Outcome]:
    """Sixty-four at once."""
    batches = [seeds[i : i + 64] for i in range(0, len(seeds), 64)]
    for batch in track(batches, "Dreaming"):
        yield from dream(actor, model, batch, horizon=args.world.horizon, temperature=args.world.temperature)


def _watched(episodes: Iterator[Any], n: int) -> Iterator[Any]:
    for _ in track(range(n), "Playing"):
        yield next(episodes)


def _write(args: Args, folder: Path, outcomes: list[Outcome], unit: str) -> str:
    """Writes evaluation.json in `folder`, and returns what it comes to in a sentence."""
    score = Score.of(outcomes)
    report = {
        **asdict(score),
        "unit": unit,
        "agent": Path(args.agent).name,
        "env": args.world.env,
        "settings": args.world.settings(),
        "model": None if args.world.model is None else model_name(args.world.model),
        "command": command_line("evaluate", args),
        "returns": [o.earned for o in outcomes],
        "steps": [o.steps for o in outcomes],
        "seed": args.seed,
    }
    write_text(folder / "evaluation.json", json.dumps(report, indent=1) + "\n")
    low, high = score.ci95
    return (
        f"{args.agent}: {score.mean:z.1f} {unit} an episode (95% interval {low:z.1f} to {high:z.1f}, spread "
        f"{score.std:z.1f}, {score.episodes} episodes). The report is in {args.out / 'evaluation.json'}."
    )


def _beside_its_dream(frames: Tensor, actions: Tensor, world: WorldModel) -> Tensor:
    """The real frames, uint8 [T+1, H, W, 3], and beside them what is dreamed after the first few of them."""
    given = min(GIVEN, len(frames) - 1)
    state = world.observe(frames[None, :given], actions[None, : given - 1])
    rollout = world.imagine(state, actions[None, given - 1 :], rngs=generators(0, 1))
    dreamed = torch.cat([frames[:given], rollout.frames()[0].cpu()])
    return torch.cat([frames, dreamed], 2)

"""`worldmodel collect`: record episodes of a Gymnasium environment into a store."""

import ast
import json
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import Positional

from envs.recording import (
    FORWARD,
    STICK,
    Policy,
    World,
    action_meanings,
    make_world,
    open_recording,
    record,
    sticky_random,
)
from scripts.unused import refuse_unused
from worldmodel.errors import UserError, require


@dataclass
class Args:
    """Record episodes of a Gymnasium environment into a store. Run again, it goes on where it was interrupted."""

    env_id: Positional[str]
    """The environment: a Gymnasium id such as worldmodel/Doom-v0, or module:id for one that a module registers."""
    store: str
    """Where the episodes go: a folder, or any fsspec address. A recording that is there already goes on."""
    episodes: int
    """How many episodes the store shall hold in the end."""
    num_envs: int = 1
    """How many copies of the environment play at once."""
    seed: int = 0
    """Episode i is reset with the seed `seed + i`."""
    env_kwargs: tuple[str, ...] = ()
    """The environment's own settings: name=value ..."""
    max_steps: int | None = None
    """Truncate episodes after so many steps: needed where the environment has no end of its own."""
    agent: str | None = None
    """Who plays: a bundled agent's name, a folder, or a .zip that Stable-Baselines3 saved. Without one, play is random
    and sticky."""
    model: str | None = None
    """The model in whose latents the agent sees, where it is no longer where the agent was trained."""
    explore: float = 0.1
    """Share of random actions among an agent's: a world model should also see what it would not do."""
    stick: float = STICK
    """Random play: probability to repeat the last action."""
    forward: float = FORWARD
    """Random play: probability to choose the action called "forward", if there is one, before any other."""


def main(args: Args) -> None:
    """Record until the store holds `args.episodes` episodes. Interrupted, it says how to go on."""
    if args.episodes < 1 or args.num_envs < 1 or args.seed < 0 or (args.max_steps is not None and args.max_steps < 1):
        raise UserError("--episodes, --num-envs and --max-steps must be 1 or more, and --seed 0 or more.")
    if args.seed + args.episodes > 2**63:
        raise UserError(f"The seed of the last episode, --seed + --episodes - 1, is {2**63 - 1} at most.")
    if not all(0 <= chance <= 1 for chance in (args.stick, args.forward, args.explore)):
        raise UserError("--stick, --forward and --explore are probabilities: give numbers from 0 to 1.")
    if args.agent is None:
        refuse_unused(args, "explore", "model", where="without an --agent")
    else:
        refuse_unused(args, "stick", "forward", where="where an agent plays")
    env_kwargs = parse_settings(args.env_kwargs)
    with closing(make_world(args.env_id, env_kwargs)) as world:
        policy, note = choose_policy(args, world)
        store = open_recording(
            args.store, world, args.env_id, env_kwargs, policy=note, seed=args.seed, max_steps=args.max_steps
        )
    seeds = range(args.seed + len(store), args.seed + args.episodes)
    worlds = min(args.num_envs, len(seeds))
    episodes = record(
        partial(make_world, args.env_id, env_kwargs), policy, seeds, worlds=worlds, max_steps=args.max_steps
    )
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes, {task.fields[rate]:.0f} frames/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    try:
        with closing(episodes), bar:
            task = bar.add_task(args.env_id, total=args.episodes, completed=len(store), rate=0.0)
            start, frames = time.monotonic(), 0
            for episode in episodes:
                store.append(episode)
                frames += len(episode.frames)
                bar.update(task, advance=1, rate=frames / (time.monotonic() - start))
    except KeyboardInterrupt:
        print(f"Stopped: {args.store} holds {len(store)} of {args.episodes} episodes. Run the same command to go on.")
        raise
    print(f"{args.store} holds {len(store)} episodes, {store.lengths.sum() + len(store)} frames.")


def choose_policy(args: Args, world: World) -> tuple[Policy, str]:
    """Who plays, and a note on it for the store."""
    if args.agent is not None:
        require("stable_baselines3", "agents")
        from agents.actors import Exploring, in_real_world
        from agents.agent import Agent
        from worldmodel.world import WorldModel

        model = None if args.model is None else WorldModel.from_pretrained(args.model)
        agent, meanings = Agent.load(args.agent, world=model), action_meanings(world)
        agent.check_fits(world.observation_space.shape or (), meanings)
        return in_real_world(
            Exploring(agent, len(meanings), args.explore)
        ), f"agent {Path(args.agent).name}, explore {args.explore}"
    policy = sticky_random(action_meanings(world), stick=args.stick, forward=args.forward)
    return policy, f"sticky random, stick {args.stick}, forward {args.forward}"


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`("level=arena", "width=84")` -> {"level": "arena", "width": 84}: Python literals where they are, else text."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise UserError(f"--env-kwargs takes name=value, not {setting!r}.")
        try:
            parsed[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed[name] = value
        try:
            json.dumps(parsed[name])
        except TypeError as error:
            raise UserError(f"--env-kwargs takes what JSON can say, for the store to keep, and not {value}.") from error
    return parsed

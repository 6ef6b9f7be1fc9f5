"""`worldmodel dyna`: play, learn the world, learn to act in dreams of it, and again with what was learned."""

import dataclasses
import json
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from agents.actors import Exploring, in_real_world
from agents.agent import Agent
from agents.training import PPOConfig
from envs.recording import Policy, action_meanings, make_world, open_recording, record, sticky_random
from scripts import evaluate, train, train_agent
from scripts.device import FASTEST, Device, check_device
from scripts.settings import write_settings
from scripts.unused import refuse_unused
from scripts.world_choice import WorldChoice, check_fits
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError, require
from worldmodel.files import write_text
from worldmodel.objectives import DynamicsObjective
from worldmodel.progress import track
from worldmodel.recipe import Recipe, check_from_scratch
from worldmodel.sampling import check_temperature
from worldmodel.video import video_preset
from worldmodel.world import WorldModel

EXPLORE = 0.1  # share of random actions among those of an agent that records
MAY_DIFFER = {"out", "rounds", "device"}  # when a loop goes on


@dataclass
class Args:
    """The whole loop, named after Sutton's Dyna (1991), which alternates acting, learning a model and planning in it.

    Each round records episodes of the real world, the agent's own (in the first round those of --agent, or random
    ones), all into one store (OUT/episodes); goes on training the model on all of them (OUT/round0/model, ...); goes on
    training the agent in dreams of it (OUT/agent); and measures it in the real world (OUT/round0/evaluation, ...).
    OUT/rounds.json has the table. The first round makes the tokenizer, and the others keep it, so that the agent's
    eyes stay the same. Run the same command again to go on after an interruption; with more rounds it goes on, too.
    """

    out: Path
    env: str
    """The real world: worldmodel/Doom-v0, worldmodel/DMLab-v0, or another Gymnasium id."""
    scenario: str | None = None
    """Doom: the scenario, such as take-cover."""
    level: str | None = None
    """DeepMind Lab: the level."""
    env_kwargs: tuple[str, ...] = ()
    """The world's other settings: name=value ..."""
    rounds: int = 3
    episodes: int = 400
    """Recorded in each round."""
    max_steps: int | None = None
    """Truncate real episodes after so many steps: needed where the world has no end of its own."""
    model: str | None = None
    """Begin with this model instead of random weights: a bundled name, a folder, or a Hub id. Its tokenizer is kept."""
    agent: str | None = None
    """Begin with this agent, which sees through --model: a bundled name or a folder."""
    horizon: int = 525
    """Steps after which a dream is truncated."""
    temperature: float = 1.0
    """Of dreams."""
    dreams: int = 64
    """Episodes by which dreams rate the agent."""
    test_episodes: int = 100
    """Real episodes by which each round's agent is measured."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="recipe")] = field(default_factory=Recipe)
    """How each round's model is trained; see `worldmodel train`."""
    ppo: Annotated[PPOConfig, tyro.conf.arg(name="ppo")] = field(default_factory=PPOConfig)
    """How the agent is trained; its steps are those of one round. See `worldmodel train-agent`."""
    every: int = 100_000
    """Steps between evaluations of the agent in dreams."""
    device: Device = FASTEST


def main(args: Args) -> None:
    if min(args.rounds, args.episodes, args.test_episodes, args.dreams, args.every, args.horizon) < 1:
        raise UserError("--rounds, --episodes, --test-episodes, --dreams, --every and --horizon must be 1 or more.")
    if args.max_steps is not None and args.max_steps < 1:
        raise UserError("--max-steps must be 1 or more.")
    check_temperature(args.temperature)
    if args.model is not None:
        refuse_unused(args.recipe, *train.OF_TOKENIZER, where="with --model, whose tokenizer is kept", prefix="recipe.")
    check_device(args.device)
    args.ppo.check_batch(train_agent.Args.num_envs)
    require("matplotlib", "metrics")
    require("torchmetrics", "metrics")
    _check_world(args)
    settings = _settings(args)
    learned = (args.out / "round0").exists()
    later = set() if learned else {name for name in settings if name.startswith(("recipe.", "ppo."))}
    write_settings(args.out, settings, MAY_DIFFER | later)
    table = args.out / "rounds.json"
    rounds: list[dict[str, Any]] = _read(table) if table.exists() else []
    for number in range(args.rounds):
        here = args.out / f"round{number}"
        print(f"Round {number + 1} of {args.rounds}")
        store = _record(args, number)
        if not _model(args, number).exists():
            _learn_world(args, number, store)
        _learn_to_act(args, number)
        if not (here / "evaluation" / "evaluation.json").exists():
            _measure(args, number)
        report = _read(here / "evaluation" / "evaluation.json")
        steps = int(store.lengths[: (number + 1) * args.episodes].sum())  # of the rounds so far
        row = {"real_steps": steps, **{k: report[k] for k in ("episodes", "mean", "std", "ci95", "unit")}}
        rounds[number : number + 1] = [row]
        write_text(table, json.dumps(rounds, indent=1) + "\n")
    print(f"The agent is in {_agent(args, args.rounds - 1)}, the table in {table}.")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged; remove it, with the folder `evaluation` if it is in one.") from error


def _settings(args: Args) -> dict[str, Any]:
    """All arguments by name, those of a group after its own: `ppo.steps`."""
    settings = dataclasses.asdict(args)
    for group in ("recipe", "ppo"):
        settings |= {f"{group}.{name}": value for name, value in settings.pop(group).items()}
    return settings


def _check_world(args: Args) -> None:
    """Raise `UserError` when the world, or the model to begin with, cannot be had, or one is not of the other.

    Also when no model of such a world could be made by the recipe: all before a first episode is played.
    """
    model = WorldModel.from_pretrained(args.model) if args.model else None
    if args.agent and not model:
        raise UserError("--agent sees through a model: give it, too, by --model.")
    if model and (order := model.config.dynamics.order) != args.recipe.order:
        raise UserError(f"{args.model} draws codes in {order} order: go on with it by --recipe.order {order}.")
    if args.max_steps is not None and args.max_steps + 1 < DynamicsObjective.window:
        raise UserError(
            f"A model learns from windows of {DynamicsObjective.window} frames: give --max-steps "
            f"{DynamicsObjective.window - 1} or more."
        )
    with closing(make_world(args.env, _real_world(args).settings())) as world:
        if model:
            check_fits(model, world)
            if args.agent:
                train_agent.load_start(
                    args.agent, train_agent.Args.obs, model, model.frame_shape, model.action_meanings
                )
        else:
            height, width, *_ = world.observation_space.shape or ()
            video_preset(args.recipe.preset, (height, width))
            check_from_scratch(args.recipe)


def _record(args: Args, number: int) -> EpisodeStore:
    """The store with the episodes of this round, and of those before."""
    settings = _real_world(args).settings()
    with closing(make_world(args.env, settings)) as world:
        note, meanings = "worldmodel dyna", action_meanings(world)
        store = open_recording(
            str(args.out / "episodes"), world, args.env, settings, policy=note, max_steps=args.max_steps
        )
    policy: Policy = sticky_random(meanings)
    seeds = range(len(store), (number + 1) * args.episodes)
    if seeds and (agent := _trained(args, number - 1)):
        policy = in_real_world(Exploring(agent, len(meanings), EXPLORE))
    make = partial(make_world, args.env, settings)
    with closing(record(make, policy, seeds, worlds=min(2, len(seeds)), max_steps=args.max_steps)) as episodes:
        for _ in track(seeds, "Playing") if seeds else ():
            store.append(next(episodes))
    return store


def _learn_world(args: Args, number: int, store: EpisodeStore) -> None:
    before, recipe = args.model if number == 0 else str(_model(args, number - 1)), args.recipe
    if before is not None:  # whose tokenizer is kept
        recipe = dataclasses.replace(recipe, **{name: getattr(Recipe, name) for name in train.OF_TOKENIZER})
    train.main(
        train.Args(
            store=store.address,
            out=args.out / f"round{number}",
            tokenizer=before,
            init=before,
            device=args.device,
            recipe=recipe,
        )
    )


def _learn_to_act(args: Args, number: int) -> None:
    """So many steps more than in the rounds before, in dreams of this round's model."""
    if _agent(args, number).exists():
        return
    dreams = WorldChoice(
        model=str(_model(args, number)),
        horizon=args.horizon,
        temperature=args.temperature,
        device=args.device,
    )
    ppo = dataclasses.replace(args.ppo, steps=(number + 1) * args.ppo.steps)
    learning = args.out / "agent"
    # Not its `main`, which keeps to one model: each round has another, with the same eyes.
    training = train_agent.Training(
        train_agent.Args(learning, dreams, ppo, init=args.agent, every=args.every, dreams=args.dreams)
    )
    training.run()
    agent = Agent.load(learning / "agent", world=training.model)
    agent.save(_agent(args, number), card=(learning / "agent" / "README.md").read_text())


def _trained(args: Args, number: int) -> Agent | None:
    """The agent of a round, which sees through that round's model; before the first, that to begin with."""
    agent, model = (args.agent, args.model) if number < 0 else (_agent(args, number), _model(args, number))
    if agent is None or model is None:
        return None
    return Agent.load(agent, world=WorldModel.from_pretrained(model, device=args.device))


def _measure(args: Args, number: int) -> None:
    evaluate.main(
        evaluate.Args(
            agent=str(_agent(args, number)),
            out=args.out / f"round{number}" / "evaluation",
            episodes=args.test_episodes,
            max_steps=args.max_steps,
            world=dataclasses.replace(_real_world(args), model=str(_model(args, number))),
        )
    )


def _real_world(args: Args) -> WorldChoice:
    return WorldChoice(args.env, args.scenario, args.level, args.env_kwargs, device=args.device)


def _model(args: Args, number: int) -> Path:
    """Where the model of a round is."""
    return args.out / f"round{number}" / "model"


def _agent(args: Args, number: int) -> Path:
    """Where the agent of a round is."""
    return args.out / f"round{number}" / "agent"

"""`worldmodel train-agent`: train an agent with PPO, in a dream or in a real world."""

import json
import math
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from gymnasium import spaces
from torch.utils.tensorboard import SummaryWriter

from agents.agent import Agent, AgentConfig
from agents.caution import SurprisePenalty
from agents.evaluation import Outcome, Score, dream, outcome, play
from agents.training import PPOConfig, train
from envs.imagined_vector import ImaginedVectorEnv
from envs.observations import Obs
from envs.recording import action_meanings, make_world
from scripts.agent_figures import draw_learning
from scripts.settings import write_settings
from scripts.unused import refuse_unused
from scripts.world_choice import WorldChoice, check_fits, make_worlds
from worldmodel.digest import weights_digest
from worldmodel.errors import UserError, require
from worldmodel.files import write_text
from worldmodel.folders import lasting_name
from worldmodel.precision import fast_dtype
from worldmodel.world import WorldModel

if TYPE_CHECKING:
    from stable_baselines3 import PPO
    from stable_baselines3.common.policies import ActorCriticPolicy

EVALUATION_SEED = 1_000_000  # that of the first episode of each evaluation, far from those of the training
# When a training goes on.
MAY_DIFFER = {"out", "num_envs", "every", "device", *(f.name for f in fields(PPOConfig))} - {"seed"}


@dataclass
class Args:
    """Train an agent with Stable-Baselines3's PPO in dreams of a model (the default), or in a real world to compare.

    Run the same command again to go on after an interruption; with more steps a finished training goes on, too. How
    PPO learns may be changed then, but not what.
    """

    out: Path
    """Folder for checkpoints, TensorBoard logs, the evaluations on the way (progress.json, learning.png), the agent
    itself (OUT/agent) and the one that dreams rated best (OUT/best)."""
    world: Annotated[WorldChoice, tyro.conf.arg(name="")] = field(default_factory=WorldChoice)
    ppo: Annotated[PPOConfig, tyro.conf.arg(name="")] = field(default_factory=PPOConfig)
    obs: Obs = "history"
    """What the agent sees: "history" (the codes of the newest frames), "latents" (of the newest alone) or "pixels"."""
    init: str | None = None
    """Begin with this agent instead of random weights: a bundled name or a folder. It must see and do the same."""
    num_envs: int = 64
    """How many dreams, or copies of the real world, are played at once."""
    surprise_penalty: float = 0.0
    """Dreams: taken from the reward for each bit a code of surprise above the usual."""
    every: int = 100_000
    """Steps between evaluations."""
    dreams: int = 64
    """Episodes of an evaluation in dreams of --model."""
    real_env: str | None = None
    """Evaluate in this real world, too (with the same --scenario, --level and --env-kwargs)."""
    real_episodes: int = 20
    """Episodes of an evaluation in the real world."""
    max_steps: int | None = None
    """Truncate real episodes after so many steps: needed where the world has no end of its own."""


def main(args: Args) -> None:
    if min(args.num_envs, args.every, args.dreams, args.real_episodes, args.ppo.steps) < 1:
        raise UserError("--num-envs, --every, --dreams, --real-episodes and --steps must be 1 or more.")
    if not args.world.imagined and (args.surprise_penalty or args.real_env):
        raise UserError("--surprise-penalty and --real-env belong to training in dreams; leave them out.")
    if not 0 <= args.surprise_penalty < math.inf or (args.max_steps is not None and args.max_steps < 1):
        raise UserError("--surprise-penalty must be 0 or more, and --max-steps 1 or more.")
    args.ppo.check_batch(args.num_envs)
    if args.real_env is None:
        args.world.check()
    if args.world.imagined and args.real_env is None:
        refuse_unused(args, "real_episodes", "max_steps", where="without a real world (--real-env)")
    if not args.world.imagined and args.world.model is None:
        refuse_unused(args, "dreams", where="without a --model to dream of")
        refuse_unused(args.world, "horizon", "temperature", where="without a --model to dream of")
    require("matplotlib", "metrics")  # for the curves
    training = Training(args)
    # What is at an address may have become another.
    weights = {"model_weights": weights_digest(training.model), "init_weights": weights_digest(training.init)}
    write_settings(args.out, _settings(args) | weights, MAY_DIFFER)
    training.run()


class Training:
    """What a training needs besides PPO: its worlds, and what is done at each evaluation.

    Raises `UserError` when the model and the real world have other frames or actions, or one of them cannot be had.
    """

    def __init__(self, args: Args) -> None:
        self.args, choice = args, args.world
        # An agent from dreams is chosen by dreams alone: the real world is for measuring it.
        self.rated_by = "dream" if choice.imagined else "real"
        self.model = choice.load(fast_dtype(choice.device))
        if args.obs != "pixels" and self.model is None:
            raise UserError(f"--obs {args.obs} needs --model: in whose latents is it to see? Or choose --obs pixels.")
        self.real_env = args.real_env if choice.imagined else choice.env
        if self.real_env:
            with closing(make_world(self.real_env, choice.settings())) as world:
                self.meanings = action_meanings(world)
                if self.model is not None:
                    check_fits(self.model, world)
        if choice.imagined:
            assert self.model is not None
            self.meanings = self.model.action_meanings
            dreams: Any = ImaginedVectorEnv(
                self.model,
                args.num_envs,
                obs=args.obs,
                horizon=choice.horizon,
                temperature=choice.temperature,
                autoreset_mode="SameStep",
            )
            self.envs = SurprisePenalty(dreams, args.surprise_penalty) if args.surprise_penalty else dreams
        else:
            self.envs = make_worlds(
                choice.env, choice.settings(), args.num_envs, args.obs, self.model, max_steps=args.max_steps
            )
        self.init: ActorCriticPolicy | None = None
        if args.init is not None:
            frame_shape = self.model.frame_shape if self.model else self.envs.single_observation_space.shape or ()
            self.init = load_start(args.init, args.obs, self.model, frame_shape, self.meanings).policy

    def run(self) -> None:
        """Train, or go on, and save the agent."""
        out = self.args.out
        self._record(0)  # damaged, it should be known now
        try:
            learner = train(
                self.envs,
                self.args.ppo,
                out,
                world=self.model,
                init=self.init,
                every=self.args.every,
                evaluate=self.evaluate,
                device=self.args.world.device,
            )
        finally:
            self.envs.close()
        self.agent(learner).save(out / "agent", card=self.card())
        steps = learner.num_timesteps
        print(f"The agent, of {steps} steps, is in {out / 'agent'}, the one rated best on the way in {out / 'best'}.")

    def agent(self, learner: "PPO") -> Agent:
        space = self.envs.single_observation_space
        assert isinstance(space, spaces.Box) and space.shape is not None
        seen = self.model if self.args.obs != "pixels" else None
        config = AgentConfig(
            obs=self.args.obs,
            observation_shape=tuple(space.shape),
            num_codes=int(space.high.max()) + 1,
            action_meanings=tuple(self.meanings),
            model=lasting_name(self.args.world.model) if seen and self.args.world.model else None,
            codebook=seen.video.codebook_fingerprint() if seen else None,
        )
        return Agent(config, learner.policy, seen)

    def evaluate(self, learner: "PPO") -> None:
        """Measure the agent as it is now, keep it if it is the best so far, and redraw the curves."""
        agent, record = self.agent(learner), self._record(learner.num_timesteps)
        entry: dict[str, Any] = {"steps": learner.num_timesteps}
        seeds = list(range(EVALUATION_SEED, EVALUATION_SEED + max(self.args.dreams, self.args.real_episodes)))
        if self.model is not None:
            choice = self.args.world
            entry["dream"] = _summary(
                dream(
                    agent,
                    self.model,
                    seeds[: self.args.dreams],
                    horizon=choice.horizon,
                    temperature=choice.temperature,
                )
            )
        if self.real_env:
            make = partial(make_world, self.real_env, self.args.world.settings())
            episodes = play(agent, make, seeds[: self.args.real_episodes], worlds=2, max_steps=self.args.max_steps)
            entry["real"] = _summary([outcome(episode) for episode in episodes])
        with SummaryWriter(str(self.args.out)) as log:
            for where in ("dream", "real"):
                if where in entry:
                    log.add_scalar(f"evaluation/{where}", entry[where]["mean"], entry["steps"])
        if all(entry[self.rated_by]["mean"] > earlier[self.rated_by]["mean"] for earlier in record):
            agent.save(self.args.out / "best", card=self.card())
        record.append(entry)
        write_text(self.args.out / "progress.json", json.dumps(record, indent=1) + "\n")
        draw_learning(record, self.args.out / "learning.png")

    def card(self) -> str:
        settings = json.dumps(asdict(self.args), indent=2, default=str)
        return f"# An agent\n\nTrained by `worldmodel train-agent` with these settings:\n\n```json\n{settings}\n```\n"

    def _record(self, steps: int) -> list[dict[str, Any]]:
        """The evaluations before so many steps; any later one is from before an interruption, and made again."""
        path = self.args.out / "progress.json"
        try:
            record = json.loads(path.read_text()) if path.exists() else []
            for entry in record:
                Score(**entry[self.rated_by])
            return [entry for entry in record if entry["steps"] < steps]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is damaged; remove it to go on without it.") from error


def load_start(
    name: str, obs: Obs, model: WorldModel | None, frame_shape: tuple[int, ...], meanings: list[str]
) -> Agent:
    """The agent to begin with. Raises `UserError` unless it has such observations, of this model, and such actions."""
    agent = Agent.load(name, world=model)
    if agent.obs != obs:
        raise UserError(
            f"The agent {name} sees {agent.obs}, and these agents see {obs}: choose one that sees the same."
        )
    agent.check_fits(frame_shape, meanings)
    return agent


def _settings(args: Args) -> dict[str, Any]:
    settings = asdict(args)
    return settings.pop("world") | settings.pop("ppo") | settings


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    return asdict(Score.of(outcomes))

"""PPO, in dreams or in a real world: Stable-Baselines3's, with checkpoints and a bar."""

import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any
from zipfile import ZipFile

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from rich.progress import Progress
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from agents.agent import DAMAGES
from agents.caution import SurprisePenalty
from agents.policies import policy_settings
from agents.vec_env import SB3VecEnv, layers
from worldmodel.errors import UserError
from worldmodel.files import write_bytes
from worldmodel.progress import training_progress
from worldmodel.training import interrupts_deferred
from worldmodel.world import WorldModel

PROGRESS = "progress.json"  # in the checkpoint, beside what Stable-Baselines3 keeps there
CHECKPOINT_EVERY = 60.0  # seconds


@dataclass
class PPOConfig:
    """How to train."""

    steps: int = 1_000_000
    """Steps of experience, over all environments: one batch at least, and rounded up to whole ones."""
    batch: int = 2048
    """Steps between updates, over all environments."""
    minibatch: int = 256
    epochs: int = 4
    """How often each batch is gone through."""
    learning_rate: float = 2e-4
    gamma: float = 0.99
    entropy: float = 0.01
    """Weight of the policy's entropy: the more, the longer it tries everything."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.epochs) < 1 or min(self.batch, self.minibatch) < 2:
            raise UserError("PPO needs --steps and --epochs of 1 or more, and a --batch and --minibatch of 2 or more.")
        if self.minibatch > self.batch:
            raise UserError(f"PPO's minibatch of {self.minibatch} steps is larger than its batch of {self.batch}.")
        if self.batch > self.steps:
            raise UserError(f"PPO learns from batches of {self.batch} steps, so it takes as many at least.")
        if not 0 < self.learning_rate < 1 or not 0 <= self.gamma <= 1 or not 0 <= self.entropy < math.inf:
            raise UserError(
                "PPO needs a --learning-rate between 0 and 1, a --gamma from 0 to 1, and an --entropy of 0 or more."
            )
        if not 0 <= self.seed < 2**32:
            raise UserError(f"PPO needs a --seed from 0 to {2**32 - 1}.")

    def check_batch(self, num_envs: int) -> None:
        """Raise `UserError` when a batch has less than two steps of each of so many environments."""
        if self.batch < 2 * num_envs:
            raise UserError(f"A batch has two steps of each of {num_envs} environments at least, not {self.batch}.")


def train(
    envs: VectorEnv[Any, Any, Any],
    config: PPOConfig,
    folder: Path,
    *,
    world: WorldModel | None = None,
    init: ActorCriticPolicy | None = None,
    every: int,
    evaluate: Callable[[PPO], None],
    device: str = "cpu",
) -> PPO:
    """Train until `config.steps`, from the checkpoint in `folder` if there is one; `evaluate` every so many steps.

    The policy sees pixels, or the latents of `world`, begins with the weights of `init`, and learns on `device`.
    Rewards are scaled by the spread of their discounted sums. All is logged to TensorBoard in `folder`. A checkpoint is
    written every minute, before and after each evaluation, and on Ctrl-C, which then raises `KeyboardInterrupt`: the
    batch being played is lost. What goes on does so in new episodes, with luck of its own.
    Raises `UserError` when the checkpoint is damaged or of another agent, when `init` is another network, and when the
    training diverges.
    """
    space = envs.single_observation_space
    assert isinstance(space, spaces.Box)
    config.check_batch(envs.num_envs)
    folder.mkdir(parents=True, exist_ok=True)
    worlds = VecNormalize(VecMonitor(SB3VecEnv(envs)), norm_obs=False, gamma=config.gamma)
    settings: dict[str, Any] = {
        "n_steps": config.batch // envs.num_envs,
        "batch_size": config.minibatch,
        "n_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "gamma": config.gamma,
        "ent_coef": config.entropy,
        "seed": config.seed,
        "device": device,
    }
    policy = policy_settings(space, world)
    checkpoint = _Checkpoint(folder / "checkpoint.zip", _statistics(envs, worlds))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You have specified a mini-batch size")  # the last one may be smaller
        learner = checkpoint.load(worlds, policy, settings)
        if learner is None:
            learner = PPO("MlpPolicy", worlds, policy_kwargs=policy, **settings)
            if init is not None:
                _copy_weights(init, learner.policy)
    learner.set_logger(configure(str(folder), ["tensorboard"]))
    with training_progress("earned") as progress:
        done = learner.num_timesteps
        task = progress.add_task("agent", total=max(config.steps, done), completed=done, earned="")
        while checkpoint.evaluated < config.steps:
            due = min((checkpoint.evaluated // every + 1) * every, config.steps)
            with interrupts_deferred() as interrupted:
                watch = _Watch(progress, task, checkpoint, interrupted)
                checkpoint.mark(learner)
                try:
                    learner.learn(due - learner.num_timesteps, callback=watch, reset_num_timesteps=False)
                except Exception as error:
                    if not all(parameter.isfinite().all() for parameter in learner.policy.parameters()):
                        raise UserError("The agent's weights are no longer finite: lower the learning rate.") from error
                    if not interrupted.is_set():
                        raise
                    # Of a world in a process of its own, which the same Ctrl-C has ended.
                    checkpoint.roll_back(learner)
                checkpoint.save(learner)
                if interrupted.is_set():
                    raise KeyboardInterrupt
            evaluate(learner)
            checkpoint.evaluated = learner.num_timesteps
            checkpoint.save(learner)
    return learner


def _copy_weights(init: ActorCriticPolicy, policy: ActorCriticPolicy) -> None:
    try:
        policy.load_state_dict(init.state_dict())
    except RuntimeError as error:
        raise UserError("The agent to begin with has another network than those that are trained here.") from error


class _Watch(BaseCallback):
    """Moves the bar, writes a checkpoint now and then, and stops when interrupted."""

    def __init__(self, progress: Progress, task: Any, checkpoint: "_Checkpoint", interrupted: Event) -> None:
        super().__init__()
        self._progress, self._task = progress, task
        self._checkpoint, self._interrupted = checkpoint, interrupted

    def _on_rollout_start(self) -> None:
        self._checkpoint.mark(self.model)
        if self._checkpoint.age() > CHECKPOINT_EVERY:
            self._checkpoint.save(self.model)

    def _on_step(self) -> bool:
        recent = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        earned = f"return {sum(recent) / len(recent):.1f}" if recent else ""
        self._progress.update(self._task, completed=self.num_timesteps, earned=earned)
        if self._interrupted.is_set():
            self._checkpoint.roll_back(self.model)
            return False
        return True


def _statistics(envs: VectorEnv[Any, Any, Any], worlds: VecNormalize) -> dict[str, RunningMeanStd]:
    """What the worlds themselves learn on the way, and an agent's rewards depend on."""
    found = {"returns": worlds.ret_rms}
    for layer in layers(envs):
        if isinstance(layer, SurprisePenalty):
            found["surprise"] = layer.usual
    return found


class _Checkpoint:
    """All of a training in one file, replaced whole, so that no part of it is ever older than another."""

    def __init__(self, path: Path, statistics: dict[str, RunningMeanStd]) -> None:
        self.path, self.statistics = path, statistics
        self.evaluated = 0  # steps that the agent had at its last evaluation
        self._saved = time.monotonic()
        self._marked: tuple[int, dict[str, dict[str, Any]]] = 0, {}

    def mark(self, learner: BaseAlgorithm) -> None:
        """From here on a batch is played."""
        self._marked = learner.num_timesteps, {name: dict(vars(found)) for name, found in self.statistics.items()}

    def roll_back(self, learner: BaseAlgorithm) -> None:
        """The batch being played is lost, and counts for nothing."""
        learner.num_timesteps, statistics = self._marked
        for name, values in statistics.items():
            vars(self.statistics[name]).update(values)

    def age(self) -> float:
        """Seconds since it was written, or else since the training began."""
        return time.monotonic() - self._saved

    def save(self, learner: BaseAlgorithm) -> None:
        file = BytesIO()
        learner.save(file)
        numbers = {name: {key: float(x) for key, x in vars(found).items()} for name, found in self.statistics.items()}
        with ZipFile(file, "a") as archive:
            archive.writestr(PROGRESS, json.dumps({"evaluated": self.evaluated, "statistics": numbers}))
        write_bytes(self.path, file.getvalue())
        self._saved = time.monotonic()

    def load(self, worlds: VecNormalize, policy: dict[str, Any], settings: dict[str, Any]) -> PPO | None:
        """The learner of such a `policy`, if there is one; it goes on with `settings` even if it began with others."""
        if not self.path.exists():
            return None
        try:
            learner = PPO.load(self.path, env=worlds, **settings)
            if learner.policy_kwargs != policy:
                raise ValueError("its network, or the codebook that it looks through, is another")
            with ZipFile(self.path) as archive:
                progress = json.loads(archive.read(PROGRESS))
            self.evaluated = int(progress["evaluated"])
            for name, found in self.statistics.items():
                vars(found).update(progress["statistics"][name])
        except DAMAGES as error:
            raise UserError(
                f"The checkpoint {self.path} is damaged or of another agent ({error}); choose another --out, or remove "
                "it."
            ) from error
        # Loading has sown the seed of the beginning again: the same starts, and the same draws, as were played then.
        seed = np.random.SeedSequence([settings["seed"], learner.num_timesteps]).generate_state(1)[0]
        learner.set_random_seed(int(seed))
        return learner

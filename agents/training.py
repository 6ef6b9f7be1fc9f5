"""PPO, in dreams or in a real world: Stable-Baselines3's, with checkpoints and a bar."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from rich.progress import Progress
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from agents.caution import SurprisePenalty
from agents.policies import policy_settings
from agents.vec_env import SB3VecEnv, layers
from worldmodel.errors import UserError
from worldmodel.files import write_bytes
from worldmodel.progress import training_progress

STATISTICS = "statistics.json"  # in the checkpoint, beside what Stable-Baselines3 keeps there
DAMAGES = OSError, ValueError, KeyError, AssertionError, EOFError, RuntimeError, UnpicklingError, BadZipFile


@dataclass
class PPOConfig:
    """How to train."""

    steps: int = 1_000_000
    """Steps of experience, over all environments."""
    batch: int = 4096
    """Steps between updates, over all environments."""
    minibatch: int = 512
    epochs: int = 4
    """How often each batch is gone through."""
    learning_rate: float = 5e-4
    gamma: float = 0.99
    entropy: float = 0.01
    """Weight of the policy's entropy: the more, the longer it tries everything."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.epochs) < 1 or min(self.batch, self.minibatch) < 2:
            raise UserError("PPO needs --steps and --epochs of 1 or more, and a --batch and --minibatch of 2 or more.")
        if self.learning_rate <= 0 or not 0 <= self.gamma <= 1:
            raise UserError("PPO needs a --learning-rate above 0, and a --gamma from 0 to 1.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"PPO needs a --seed from 0 to {2**32 - 1}.")


def train(
    envs: VectorEnv[Any, Any, Any],
    config: PPOConfig,
    folder: Path,
    *,
    every: int,
    evaluate: Callable[[PPO], None],
) -> PPO:
    """Train until `config.steps`, from the checkpoint in `folder` if there is one; `evaluate` every so many steps.

    Rewards are scaled by the spread of their discounted sums. All is logged to TensorBoard in `folder`; a checkpoint
    is written after each evaluation, and an interruption loses what came after the last one. What goes on does so in
    new episodes, with luck of its own.
    Raises `UserError` when the checkpoint is damaged or of another agent.
    """
    space = envs.single_observation_space
    assert isinstance(space, spaces.Box)
    folder.mkdir(parents=True, exist_ok=True)
    worlds = VecNormalize(VecMonitor(SB3VecEnv(envs)), norm_obs=False, gamma=config.gamma)
    settings: dict[str, Any] = {
        "n_steps": max(config.batch // envs.num_envs, 2),
        "batch_size": min(config.minibatch, config.batch),
        "n_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "gamma": config.gamma,
        "ent_coef": config.entropy,
        "seed": config.seed,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    statistics = _statistics(envs, worlds)
    learner = _resume(folder, worlds, statistics, settings) or PPO(
        "MlpPolicy", worlds, policy_kwargs=policy_settings(space), **settings
    )
    learner.set_logger(configure(str(folder), ["tensorboard"]))
    with training_progress("earned") as progress:
        task = progress.add_task("agent", total=config.steps, completed=learner.num_timesteps, earned="")
        while learner.num_timesteps < config.steps:
            steps = min(every, config.steps - learner.num_timesteps)
            learner.learn(steps, callback=_Watch(progress, task), reset_num_timesteps=False)
            evaluate(learner)
            _save(learner, statistics, folder)
    return learner


class _Watch(BaseCallback):
    """Moves the bar."""

    def __init__(self, progress: Progress, task: Any) -> None:
        super().__init__()
        self._progress, self._task = progress, task

    def _on_step(self) -> bool:
        recent = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        earned = f"return {sum(recent) / len(recent):.1f}" if recent else ""
        self._progress.update(self._task, completed=self.num_timesteps, earned=earned)
        return True


def _statistics(envs: VectorEnv[Any, Any, Any], worlds: VecNormalize) -> dict[str, RunningMeanStd]:
    """What the worlds themselves learn on the way, and an agent's rewards depend on."""
    found = {"returns": worlds.ret_rms}
    for layer in layers(envs):
        if isinstance(layer, SurprisePenalty):
            found["surprise"] = layer.usual
    return found


def _save(learner: PPO, statistics: dict[str, RunningMeanStd], folder: Path) -> None:
    """All of a checkpoint in one file, replaced whole, so that no part of it is ever older than another."""
    file = BytesIO()
    learner.save(file)
    with ZipFile(file, "a") as archive:
        numbers = {name: {key: float(x) for key, x in vars(found).items()} for name, found in statistics.items()}
        archive.writestr(STATISTICS, json.dumps(numbers))
    write_bytes(folder / "checkpoint.zip", file.getvalue())


def _resume(
    folder: Path, worlds: VecNormalize, statistics: dict[str, RunningMeanStd], settings: dict[str, Any]
) -> PPO | None:
    """The learner of the checkpoint, if there is one, which goes on with `settings` even if it began with others."""
    path = folder / "checkpoint.zip"
    if not path.exists():
        return None
    try:
        learner = PPO.load(path, env=worlds, **settings)
        with ZipFile(path) as archive:
            numbers = json.loads(archive.read(STATISTICS))
        for name, found in statistics.items():
            vars(found).update(numbers[name])
    except DAMAGES as error:
        raise UserError(
            f"The checkpoint in {folder} is damaged or of another agent ({error}); choose another --out, or remove it."
        ) from error
    # Loading has sown the seed of the beginning again: the same starts, and the same draws, as were played then.
    seed = np.random.SeedSequence([settings["seed"], learner.num_timesteps]).generate_state(1)[0]
    learner.set_random_seed(int(seed))
    return learner

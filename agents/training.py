"""PPO, in dreams or in a real world: Stable-Baselines3's, with checkpoints and a bar."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from rich.progress import Progress
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from agents.policies import policy_settings
from agents.vec_env import SB3VecEnv
from worldmodel.errors import UserError
from worldmodel.progress import training_progress


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
    is written after each evaluation, and an interruption loses what came after the last one.
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
    learner = _resume(folder, worlds, settings) or PPO(
        "MlpPolicy", worlds, policy_kwargs=policy_settings(space), **settings
    )
    learner.set_logger(configure(str(folder), ["tensorboard"]))
    with training_progress("earned") as progress:
        task = progress.add_task("agent", total=config.steps, completed=learner.num_timesteps, earned="")
        while learner.num_timesteps < config.steps:
            steps = min(every, config.steps - learner.num_timesteps)
            learner.learn(steps, callback=_Watch(progress, task), reset_num_timesteps=False)
            evaluate(learner)
            _save(learner, folder)
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


def _save(learner: PPO, folder: Path) -> None:
    """Both files of a checkpoint, each replaced whole."""
    worlds = learner.get_vec_normalize_env()
    assert worlds is not None
    worlds.save(str(folder / "new.pkl"))
    learner.save(folder / "new.zip")
    os.replace(folder / "new.pkl", folder / "rewards.pkl")
    os.replace(folder / "new.zip", folder / "checkpoint.zip")


def _resume(folder: Path, worlds: VecNormalize, settings: dict[str, Any]) -> PPO | None:
    """The learner of the checkpoint, if there is one, which goes on with `settings` even if it began with others."""
    if not (folder / "checkpoint.zip").exists():
        return None
    try:
        scaled = VecNormalize.load(str(folder / "rewards.pkl"), worlds.venv)
        scaled.gamma = worlds.gamma
        return PPO.load(folder / "checkpoint.zip", env=scaled, **settings)
    except (OSError, ValueError, KeyError, AssertionError, EOFError, RuntimeError, UnpicklingError) as error:
        raise UserError(
            f"The checkpoint in {folder} is damaged or of another agent ({error}); choose another --out, or remove it."
        ) from error

"""Experience a second while PPO collects, in dreams and in real worlds, and who is waited for.

    python benchmarks/experience.py --model doom-take-cover --real-env worldmodel/Doom-v0 --scenario take-cover

The same learner collects in each world, one after the other on the same cores, with the policy of `worldmodel
train-agent`: in 64 dreams, or 8 copies of a real world, 128 steps of each. "World" is the time inside the world's
own step, "agent" that of the policy, and what is left is bookkeeping. DeepMind Lab is measured where it is
installed: `--real-env worldmodel/DMLab-v0 --level seekavoid_arena_01 --model dmlab-seekavoid`.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from agents.policies import policy_settings
from agents.vec_env import SB3VecEnv
from envs.imagined_vector import ImaginedVectorEnv
from scripts.command import run_script
from scripts.world_choice import WorldChoice, make_worlds
from worldmodel.errors import UserError
from worldmodel.precision import fast_dtype
from worldmodel.world import WorldModel

STEPS = 128  # of each environment, timed; a quarter as many before, untimed


@dataclass
class Args:
    out: Path = Path(__file__).parent / "experience.json"
    real_env: str | None = None
    """A real world to measure beside the dreams."""
    world: Annotated[WorldChoice, tyro.conf.arg(name="")] = field(default_factory=WorldChoice)


class Timed(SB3VecEnv):
    """Counts the seconds spent inside the world."""

    seconds = 0.0

    def step_wait(self) -> Any:
        began = time.perf_counter()
        result = super().step_wait()
        self.seconds += time.perf_counter() - began
        return result


class _Nothing(BaseCallback):
    def _on_step(self) -> bool:
        return True


def collect(envs: Any, model: WorldModel) -> dict[str, float]:
    """Steps a second over one rollout, and the shares of it that the world and the policy take."""
    worlds = Timed(envs)
    learner = PPO(
        "MlpPolicy", worlds, n_steps=STEPS, policy_kwargs=policy_settings(worlds.observation_space, model), device="cpu"
    )
    learner.set_logger(Logger(None, []))
    _, callback = learner._setup_learn(STEPS, _Nothing())
    learner.collect_rollouts(learner.env, callback, learner.rollout_buffer, STEPS // 4)
    learner.rollout_buffer.reset()
    worlds.seconds, policy, forward = 0.0, [0.0], learner.policy.forward

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = forward(*args, **kwargs)
        policy[0] += time.perf_counter() - began
        return result

    learner.policy.forward = timed  # type: ignore[method-assign]
    began = time.perf_counter()
    learner.collect_rollouts(learner.env, callback, learner.rollout_buffer, STEPS)
    total = time.perf_counter() - began
    envs.close()
    return {
        "steps_per_second": STEPS * envs.num_envs / total,
        "world": worlds.seconds / total,
        "agent": policy[0] / total,
    }


def main(args: Args) -> None:
    choice = args.world
    model = choice.load(fast_dtype(choice.device))
    if model is None:
        raise UserError("--model says whose dreams are measured, and whose codes are seen in a real world: give one.")
    result: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "dtype": str(fast_dtype(choice.device)).removeprefix("torch."),
        "worlds": {},
    }
    for obs in ("pixels", "latents", "history"):
        envs = ImaginedVectorEnv(model, 64, obs=obs, autoreset_mode="SameStep")  # type: ignore[arg-type]
        result["worlds"][f"dream of {choice.model}, {obs}"] = collect(envs, model)
    if args.real_env:
        for obs in ("pixels", "history"):
            real = make_worlds(args.real_env, choice.settings(), 8, obs, model)  # type: ignore[arg-type]
            result["worlds"][f"{args.real_env}, {obs}"] = collect(real, model)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in result["worlds"].items():
        print(f"{name}: {row['steps_per_second']:.0f} steps/s, world {row['world']:.0%}, agent {row['agent']:.0%}")


if __name__ == "__main__":
    run_script(main, Args)

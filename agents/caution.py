"""Against the exploitation of a model's mistakes: dreams pay less where they surprise themselves."""

import math
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray
from stable_baselines3.common.running_mean_std import RunningMeanStd


class SurprisePenalty(VectorWrapper):
    """Imagined environments that take `weight` from the reward for each bit a code of surprise above the usual.

    Surprise is -log2 p of the frame that was drawn, over its number of codes; the usual is its mean over all steps
    so far, `usual.mean`. A model is surest where it has seen most, so an agent is kept where it can be trusted.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], weight: float) -> None:
        super().__init__(envs)
        self.weight = weight
        world = envs.unwrapped.world  # type: ignore[attr-defined]
        self._nats = math.prod(world.code_shape) * math.log(2)  # a bit a code, in nats a frame
        self.usual = RunningMeanStd(epsilon=0)  # nothing is usual before the first step

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        log_probs = np.zeros(self.num_envs)
        for info in (infos, infos.get("final_info", {})):  # a row that ended in this step tells in the latter
            log_probs += info.get("log_prob", 0.0)
        surprise = -log_probs / self._nats
        stepped = log_probs != 0
        if stepped.any():
            self.usual.update(surprise[stepped])
        excess = np.where(stepped, np.maximum(surprise - self.usual.mean, 0), 0)
        return observations, rewards - self.weight * excess, terminated, truncated, infos

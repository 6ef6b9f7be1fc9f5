"""Worlds that pay by the hour, for tests of how ends are told: some are over at midnight, others only cut short."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray


class Clock(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Pays 1 a step for `DAY` steps, then is either over or only cut short. It shows the time and which of the two."""

    DAY = 5

    def __init__(self, over: bool) -> None:
        self.observation_space = spaces.Box(0, self.DAY, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._over = over

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._look(), {"began": True}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self._time += 1
        midnight = self._time == self.DAY
        return self._look(), 1.0, midnight and self._over, midnight and not self._over, {"time": self._time}

    def shout(self, word: str) -> str:
        self.heard = word
        return f"{word} {self._over}"

    def _look(self) -> NDArray[np.float32]:
        return np.array([self._time, self._over], np.float32)


def clocks(*over: bool) -> SyncVectorEnv:
    return SyncVectorEnv([lambda o=o: Clock(o) for o in over], autoreset_mode=AutoresetMode.SAME_STEP)

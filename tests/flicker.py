"""A real world of the size that the tiny world sees, for tests of agents: registered as `flicker:Flicker-v0`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from tiny_world import FRAME_SHAPE, N_ACTIONS


class Flicker(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """Noise of the size that the tiny world sees, all of it drawn into the same buffer, as some simulators do."""

    def __init__(self, shape: tuple[int, ...] = FRAME_SHAPE, n_actions: int = N_ACTIONS, reuse: bool = True) -> None:
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(n_actions)
        self._buffer, self._reuse = np.zeros(shape, np.uint8), reuse

    def get_action_meanings(self) -> list[str]:
        return ["left", "right", "stay"][: int(self.action_space.n)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._draw(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self._time += 1
        return self._draw(), float(action), self._time == 9, False, {}

    def _draw(self) -> NDArray[np.uint8]:
        self._buffer[...] = self.np_random.integers(256, size=self._buffer.shape)
        return self._buffer if self._reuse else self._buffer.copy()


gymnasium.register("Flicker-v0", entry_point=Flicker, disable_env_checker=True)  # it warns of the shared frame


def film(env: gymnasium.Env[Any, Any], seed: int, steps: int = 9) -> NDArray[Any]:
    """Copies of all observations of an episode."""
    return np.stack([env.reset(seed=seed)[0].copy(), *(env.step(np.int64(0))[0].copy() for _ in range(steps))])

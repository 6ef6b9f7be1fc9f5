"""A tiny world for tests of recording: registered as `corridor:Corridor-v0`, quick to make and to step.

Every frame tells the seed, the step and the place, so that a mixed-up recording shows. An episode's length depends on
its seed; with `endless=True` it has none.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Corridor(gymnasium.Env[NDArray[np.uint8], np.int64]):
    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 5}
    frame_skip = 2

    def __init__(self, endless: bool = False, channels: int = 3, actions: int = 3) -> None:
        self.observation_space = spaces.Box(0, 255, (8, 12, channels), np.uint8)
        self.action_space = spaces.Discrete(actions, start=-1)
        self._endless = endless
        self._frame = np.zeros((8, 12, channels), np.uint8)  # used again for each frame, as some simulators do

    def get_action_meanings(self) -> list[str]:
        return ["back", "stay", "forward"][: int(self.action_space.n)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self._length = int(self.np_random.integers(5, 60))
        self._seed, self._time, self._place = seed or 0, 0, 0
        return self._draw(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self._time += 1
        self._place += int(action)
        ended = self._time == self._length and not self._endless
        by_time = self._length % 2 == 0
        return self._draw(), float(action), ended and not by_time, ended and by_time, {}

    def _draw(self) -> NDArray[np.uint8]:
        self._frame[:4] = self._seed % 256
        self._frame[4:] = self._place % 256
        self._frame[0, 0] = self._time % 256
        return self._frame


gymnasium.register("Corridor-v0", entry_point=Corridor, disable_env_checker=True)  # it warns of the shared frame

"""`worldmodel/Imagined-v0`: a learned world as a Gymnasium environment.

    env = gymnasium.make("envs:worldmodel/Imagined-v0", model="dmlab-seekavoid")

Many at once, sharing each call of the model, are `envs.imagined_vector`.
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from envs.imagined_vector import Dream, ImaginedVectorEnv, row_seeds
from envs.observations import Obs
from envs.window import Window
from worldmodel.world import WorldModel


class ImaginedEnv(gymnasium.Env[NDArray[Any], np.int64]):
    """One dream: row 0 of an `ImaginedVectorEnv` without its leading axis; see there.

    Methods that Gymnasium does not know are behind its wrappers: `env.unwrapped.branch(64)`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"]}

    def __init__(
        self,
        model: str | Path | WorldModel,
        *,
        obs: Obs = "pixels",
        horizon: int = 300,
        temperature: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        render_mode: str | None = None,
    ) -> None:
        self._row = ImaginedVectorEnv(
            model,
            obs=obs,
            horizon=horizon,
            temperature=temperature,
            device=device,
            dtype=dtype,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode="rgb_array" if render_mode == "human" else render_mode,
        )
        self.world, self.render_mode = self._row.world, render_mode
        self.metadata = {**self.metadata, "render_fps": self.world.fps}
        self.observation_space, self.action_space = self._row.single_observation_space, self._row.single_action_space
        self._window = Window("Imagined", self.world.frame_shape, self.world.fps) if render_mode == "human" else None

    def get_action_meanings(self) -> list[str]:
        """The name of each action, in order."""
        return self._row.get_action_meanings()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        if isinstance(options, dict):
            options = {key: [value] for key, value in options.items()}
        (seed,) = row_seeds(seed, 1)
        obs, info = self._row.reset(seed=[seed], options=options)
        (self._np_random,) = self._row._dream.rngs
        self._np_random_seed = self._np_random_seed if seed is None else seed
        self._show()
        return obs[0], info

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        obs, rewards, terminated, truncated, info = self._row.step(np.array([action]))
        self._show()
        surprise = {"log_prob": float(info["log_prob"][0])}
        return obs[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), surprise

    def render(self) -> NDArray[np.uint8] | None:
        """The present frame, uint8 [H, W, 3]; the window of "human" follows each reset and step by itself."""
        frames = self._row.render()
        return frames[0] if frames and self.render_mode == "rgb_array" else None

    def close(self) -> None:
        if self._window:
            self._window.close()

    def get_state(self) -> Dream:
        """See `ImaginedVectorEnv.get_state`."""
        return self._row.get_state()

    def set_state(self, state: Dream) -> NDArray[Any]:
        """See `ImaginedVectorEnv.set_state`."""
        obs = self._row.set_state(state)
        (self.np_random,) = self._row._dream.rngs
        self._show()
        return obs[0]

    def branch(
        self, n: int, *, seed: int | None = None, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP
    ) -> ImaginedVectorEnv:
        """See `ImaginedVectorEnv.branch`."""
        return self._row.branch(n, seed=seed, autoreset_mode=autoreset_mode)

    def _show(self) -> None:
        if self._window and (frames := self._row.render()):
            self._window.show(frames[0])

"""A real world seen as its dream is seen: frames become the latents that a model's tokenizer gives them."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from envs.observations import Obs, observation_space
from worldmodel.errors import UserError
from worldmodel.world import WorldModel


class LatentStream:
    """Frames of one episode in, one at a time; observations out, as `ImaginedVectorEnv` has them.

    The tokenizer is causal, so a frame's latents are what they would be in the whole episode.
    """

    def __init__(self, world: WorldModel, obs: Obs) -> None:
        self.world, self.obs = world, obs
        self._reach = world.config.video.memory - 1
        self._frames = torch.empty(0)  # uint8 [1, reach, H, W, 3]: those before the newest
        self._codes = torch.empty(0)  # int64 [1, recent, h, w]

    def begin(self, frame: NDArray[np.uint8]) -> NDArray[Any]:
        """The observation of the first frame, uint8 [H, W, 3], which stands in for its own past."""
        newest = self._tensor(frame)
        self._frames = newest.expand(-1, self._reach, -1, -1, -1)
        codes = self.world.video.encode(newest, self._frames)
        self._codes = codes.expand(-1, self.world.config.dynamics.recent, -1, -1)
        return self._observation(frame)

    def go_on(self, frame: NDArray[np.uint8]) -> NDArray[Any]:
        """The observation of the next frame, uint8 [H, W, 3]."""
        newest = self._tensor(frame)
        codes = self.world.video.encode(newest, self._frames)
        self._codes = torch.cat([self._codes[:, 1:], codes], 1)
        self._frames = torch.cat([self._frames, newest], 1)[:, 1:]
        return self._observation(frame)

    def _tensor(self, frame: NDArray[np.uint8]) -> torch.Tensor:
        kept = torch.from_numpy(np.array(frame))  # a copy: some environments draw every frame into the same buffer
        return kept[None, None].to(self.world.device)

    def _observation(self, frame: NDArray[np.uint8]) -> NDArray[Any]:
        if self.obs == "pixels":
            return frame
        codes: NDArray[np.int64] = self._codes[0].numpy(force=True)
        return codes[-1].copy() if self.obs == "latents" else codes.copy()


class LatentObservation(gymnasium.Wrapper[NDArray[Any], np.int64, NDArray[np.uint8], np.int64], RecordConstructorArgs):
    """An environment of uint8 frames [H, W, 3] that shows latents instead, as the dreams of a model do.

    An agent that learned in dreams with `obs="latents"` or `obs="history"` can play the real world in this.

    Args:
        env: the environment.
        model: a bundled model's name, a folder, a Hub id, or a `WorldModel`.
        obs: "latents", int64 [h, w], or "history", int64 [recent, h, w] with the newest last.

    Raises `UserError` when the environment's frames are not of the size and type that the model sees.
    """

    def __init__(self, env: gymnasium.Env[NDArray[np.uint8], np.int64], model: Any, obs: Obs = "latents") -> None:
        RecordConstructorArgs.__init__(self, model=model, obs=obs)
        gymnasium.Wrapper.__init__(self, env)
        world = model if isinstance(model, WorldModel) else WorldModel.from_pretrained(model)
        shown = env.observation_space
        if shown.shape != world.frame_shape or shown.dtype != np.uint8:
            raise UserError(
                f"The model sees uint8 frames {list(world.frame_shape)}, and {env.spec.id if env.spec else env} shows "
                f"{shown.dtype} {list(shown.shape or ())}."
            )
        self._stream = LatentStream(world, obs)
        self.observation_space = observation_space(world, obs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        frame, info = self.env.reset(seed=seed, options=options)
        return self._stream.begin(frame), info

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        frame, reward, terminated, truncated, info = self.env.step(action)
        return self._stream.go_on(frame), float(reward), terminated, truncated, info

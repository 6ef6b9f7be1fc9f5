"""What an agent may see of a world: its pixels, or the codes that a world model thinks in."""

from typing import Literal, get_args

import numpy as np
from gymnasium import spaces

from worldmodel.errors import UserError
from worldmodel.world import WorldModel

Obs = Literal["pixels", "latents", "history"]


def observation_space(world: WorldModel, obs: Obs) -> spaces.Box:
    """What one dream of `world` shows a step. Raises `UserError` for observations that there are not."""
    if obs not in get_args(Obs):
        raise UserError(f'Observations are "pixels", "latents" or "history", not {obs!r}.')
    if obs == "pixels":
        return spaces.Box(0, 255, world.frame_shape, np.uint8)
    frames = () if obs == "latents" else (world.config.dynamics.recent,)
    return spaces.Box(0, world.num_codes - 1, frames + world.code_shape, np.int64)

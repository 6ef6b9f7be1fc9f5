"""A world model too small to have learned anything, but lively: its dreams differ, move, pay and end."""

from typing import Any

import gymnasium
import torch

from envs.imagined_vector import ImaginedVectorEnv
from worldmodel.dynamics import DynamicsConfig
from worldmodel.state import ContextBank
from worldmodel.video import VideoConfig
from worldmodel.world import WorldConfig, WorldModel

FRAME_SHAPE = (42, 42, 3)
CODE_SHAPE = (6, 6)
N_CODES = 16
N_ACTIONS = 3
STARTS = 5
N_DREAMS = 4


def tiny_world(ends: float = 0.125) -> WorldModel:
    """The same random model at each call, in float64, where no rounding that depends on the batch flips a code.

    `ends` is the probability that a step terminates.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        world = WorldModel(
            WorldConfig(
                VideoConfig(
                    FRAME_SHAPE[:2], width=8, encoder_blocks=1, decoder_blocks=1, num_codes=N_CODES, code_dim=4
                ),
                DynamicsConfig(
                    CODE_SHAPE, N_CODES, N_ACTIONS, (-1.0, 0.0, 1.0), reach=8, blocks=2, width=16, head_width=16
                ),
                action_meanings=("left", "right", "stay"),
                fps=15,
            ),
            ContextBank(torch.randint(N_CODES, (STARTS, 4, *CODE_SHAPE)), torch.randint(N_ACTIONS, (STARTS, 3))),
        )
        for parameter in world.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    torch.nn.init.constant_(world.dynamics.outcome.termination.weight, 0.0)
    torch.nn.init.constant_(world.dynamics.outcome.termination.bias, torch.tensor(ends).logit().item())
    return world.double().eval().requires_grad_(False)


def dreams_of(world: WorldModel, num_envs: int = N_DREAMS, **kwargs: Any) -> ImaginedVectorEnv:
    """Many dreams of a world in one environment."""
    envs = gymnasium.make_vec("envs:worldmodel/Imagined-v0", num_envs, "vector_entry_point", model=world, **kwargs)
    assert isinstance(envs, ImaginedVectorEnv)
    return envs

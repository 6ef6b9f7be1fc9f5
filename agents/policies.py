"""What the networks of agents look at: codes, or pixels. The rest of them is Stable-Baselines3's."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import Tensor, nn

from worldmodel.errors import UserError
from worldmodel.world import WorldModel

WIDTH = 64  # channels
SMALLEST = 36  # pixels a side of an image: less is nothing after the convolutions of `NatureCNN`


class CodeFeatures(BaseFeaturesExtractor):
    """Features of latents, [N, h, w] or [N, frames, h, w]: the tokenizer's embeddings of them, convolved.

    The embeddings stay as they are. Codes that look alike are near each other there, so what is learned of one holds
    for the others; embeddings of the agent's own learn its few episodes by heart.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 256, *, codebook: list[list[float]]) -> None:
        """`codebook`: [K][D], the embedding of each code; plain numbers, so that settings can be compared."""
        super().__init__(observation_space, features_dim)
        *frames, rows, columns = observation_space.shape
        looks = torch.tensor(codebook)  # [K, D]
        self.codebook: Tensor
        self.register_buffer("codebook", looks / looks.std().clamp_min(1e-6), persistent=False)
        self.survey = nn.Sequential(
            nn.Conv2d(sum(frames or [1]) * looks.shape[1], WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(WIDTH * ((rows + 1) // 2) * ((columns + 1) // 2), features_dim),
            nn.ReLU(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        codes = observations.long().view(len(observations), -1, *observations.shape[-2:])  # [N, T, h, w]
        looks = F.embedding(codes, self.codebook)  # [N, T, h, w, D]
        features: Tensor = self.survey(rearrange(looks, "n t h w d -> n (t d) h w"))
        return features


def policy_settings(observation_space: spaces.Box, world: WorldModel | None = None) -> dict[str, Any]:
    """The arguments of an `ActorCriticPolicy` for images (uint8, channels first or last), or for latents of `world`.

    Raises `UserError` for latents of no world, and for images too small to look at.
    """
    if observation_space.dtype != "uint8":
        if world is None:
            raise UserError("Latents are looked at through the model that they are of: give its world.")
        codebook = world.video.quantizer.embedding.detach().bfloat16().float().tolist()  # the same in any precision
        looks: dict[str, Any] = {
            "features_extractor_class": CodeFeatures,
            "features_extractor_kwargs": {"codebook": codebook},
        }
    else:
        if sorted(observation_space.shape)[-2] < SMALLEST:
            raise UserError(
                f"Agents see frames from {SMALLEST}x{SMALLEST} pixels on; these are {list(observation_space.shape)}."
            )
        looks = {"features_extractor_class": NatureCNN}
    return {**looks, "net_arch": [64]}


def make_policy(
    observation_space: spaces.Box, action_space: spaces.Discrete, world: WorldModel | None = None
) -> ActorCriticPolicy:
    """A policy with random weights; `observation_space` as Stable-Baselines3 has it: images have channels first."""
    return ActorCriticPolicy(
        observation_space, action_space, lambda _: 0.0, **policy_settings(observation_space, world)
    )

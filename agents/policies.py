"""What the networks of agents look at: codes, or pixels. The rest of them is Stable-Baselines3's."""

from typing import Any

import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import Tensor, nn

from worldmodel.errors import UserError

WIDTH = 32  # features a code
SMALLEST = 36  # pixels a side of an image: less is nothing after the convolutions of `NatureCNN`


class CodeFeatures(BaseFeaturesExtractor):
    """Features of latents, [N, h, w] or [N, frames, h, w]: codes are embedded, those of a place added, then convolved.

    Each frame of a history has embeddings of its own, so that the sum tells what was where when.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 256) -> None:
        super().__init__(observation_space, features_dim)
        *frames, rows, columns = observation_space.shape
        self.frames = frames[0] if frames else 1
        self.num_codes = int(observation_space.high.max()) + 1
        self.embed = nn.Embedding(self.frames * self.num_codes, WIDTH)
        self.survey = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * WIDTH * ((rows + 1) // 2) * ((columns + 1) // 2), features_dim),
            nn.ReLU(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        codes = observations.long().view(len(observations), self.frames, *observations.shape[-2:])  # [N, T, h, w]
        codes = codes.permute(0, 2, 3, 1).flatten(0, 2)  # [N*h*w, T]
        table = self.num_codes * codes.new_tensor(range(self.frames))
        looks = F.embedding_bag(codes + table, self.embed.weight, mode="sum")  # [N*h*w, C]
        features: Tensor = self.survey(
            looks.view(len(observations), *observations.shape[-2:], WIDTH).permute(0, 3, 1, 2)
        )
        return features


def policy_settings(observation_space: spaces.Box) -> dict[str, Any]:
    """The arguments of an `ActorCriticPolicy` for these observations: images (uint8 [H, W, 3]) or latents.

    Raises `UserError` for images too small to look at.
    """
    pixels = len(observation_space.shape) == 3 and observation_space.dtype == "uint8"
    if pixels and sorted(observation_space.shape)[-2] < SMALLEST:
        raise UserError(
            f"Agents see frames from {SMALLEST}x{SMALLEST} pixels on; these are {list(observation_space.shape)}."
        )
    return {"features_extractor_class": NatureCNN if pixels else CodeFeatures, "net_arch": [64]}


def make_policy(observation_space: spaces.Box, action_space: spaces.Discrete) -> ActorCriticPolicy:
    """A policy with random weights; `observation_space` as Stable-Baselines3 has it: images have channels first."""
    return ActorCriticPolicy(observation_space, action_space, lambda _: 0.0, **policy_settings(observation_space))

"""The judge of actions: which action led from one frame to the next?

Trained on real pairs, it is asked about imagined ones. Where it finds the action that the dream was given as often as
it finds it between real frames, the dream obeys; where the dream ignores its actions, it can only guess.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.episodes import EpisodeStore
from worldmodel.step import Batch
from worldmodel.training import FitConfig, fit
from worldmodel.windows import WindowDataset, cached_frames

STEPS, BATCH = 1500, 64


class InverseDynamics(nn.Module):
    """frames t and t + 1 -> logits of the action between them.

    It sees them reduced to 42x42 or thereabouts, where a reconstruction differs little from what it reconstructs.
    """

    def __init__(self, n_actions: int) -> None:
        super().__init__()
        widths = (6, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.see = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())
        self.decide = nn.Sequential(nn.Dropout(0.3), nn.Linear(9 * widths[-1], n_actions))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """uint8 [N, H, W, 3], uint8 [N, H, W, 3] -> float [N, n_actions]."""
        first, second = (F.avg_pool2d(x.movedim(-1, 1).float() / 255 - 0.5, 2) for x in (before, after))
        logits: Tensor = self.decide(self.see(torch.cat([first, 4 * (second - first)], 1)))
        return logits


class _InverseObjective:
    name = "inverse dynamics"

    def __init__(self, store: EpisodeStore) -> None:
        self.model = InverseDynamics(store.n_actions)
        self.dataset = WindowDataset(store, 2, size=STEPS * BATCH, frames=cached_frames(store))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        actions = batch["actions"][:, 0]
        logits = self.model(batch["frames"][:, 0], batch["frames"][:, 1])
        return F.cross_entropy(logits, actions), {"accuracy": (logits.argmax(-1) == actions).float().mean()}

    def pictures(self) -> dict[str, Tensor]:
        return {}

    def trouble(self) -> str | None:
        return None


def learn_inverse(store: EpisodeStore, folder: Path) -> InverseDynamics:
    """Train the judge on a store, or take it from `folder` where that was done before."""
    torch.manual_seed(0)
    objective = _InverseObjective(store)
    fit(objective, FitConfig(STEPS, BATCH, 3e-3), folder)
    return objective.model.eval()


@torch.inference_mode()
def actions_found(judge: InverseDynamics, frames: Tensor, actions: Tensor) -> Tensor:
    """Whether the judge finds the action between each frame and the next.

    uint8 [T+1, H, W, 3], int64 [T] -> bool [T].
    """
    pairs = zip(frames[:-1].split(256), frames[1:].split(256), strict=True)
    return torch.cat([judge(before, after).argmax(-1) for before, after in pairs]) == actions

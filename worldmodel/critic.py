"""A critic of pictures: tells reconstructions from images, so that a decoder learns to be taken for real.

The adversarial loss that §4.2 names as future work: the non-saturating one of Goodfellow et al. (2014), over patches as
of Isola et al. (2017).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = 64, 128, 256  # channels after each convolution


class Critic(nn.Module):
    """Pictures, float [B, 3, H, W] in [-0.5, 0.5], to logits of being real, [B, h, w]: each of 22x22 pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(WIDTHS[-1], 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures).squeeze(1)

    def losses(self, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """What the critic minimises, and what the maker of `made` does: scalars, in nats a patch.

        Neither has a gradient for the other's part: the first leaves `made` alone, the second the critic.
        """
        told_apart = F.softplus(-self(real)).mean() + F.softplus(self(made.detach())).mean()
        frozen = {name: weight.detach() for name, weight in self.named_parameters()}
        taken_for_real = F.softplus(-torch.func.functional_call(self, frozen, (made,))).mean()
        return told_apart, taken_for_real

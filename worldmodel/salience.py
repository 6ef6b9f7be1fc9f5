"""What in a frame is worth getting right: rare colours, and colours that are seen where rewards come."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.episodes import EpisodeStore

_BINS = 4096  # colours are told apart by 4 bits a channel
_LIMIT = 60.0  # no colour counts more
_BEFORE = 4  # frames before a reward in which its cause is looked for


class PixelWeight:
    """How much a pixel counts in the tokenizer's loss, by the colours around it, with mean one over the recordings.

    Small things that earn reward cover a few pixels in a thousand, so plain errors let a tokenizer fade them into the
    background. A colour's weight is its rarity, frequency ** -0.8, times the square of its reward lift: how much more
    of it is seen in the frames up to a reward than in the rest of the same episodes. Neither knows what a reward
    looks like beforehand. A reward is any that is not the recordings' commonest. To a pixel's own
    weight comes an eighth of the largest within two pixels: alone, the first draws small things too large, the second
    too faint.
    """

    def __init__(self, store: EpisodeStore) -> None:
        """Read the whole store once."""
        frequency, near, around = (torch.zeros(_BINS) for _ in range(3))
        commonest = torch.from_numpy(store.flat("rewards")).mode().values.item()
        samples = []
        for episode in store:
            frames = torch.from_numpy(episode.frames)
            share = _colour_shares(frames[::5])
            frequency += share / len(store)
            for step in (episode.rewards != commonest).nonzero()[0].tolist():
                near += _colour_shares(frames[max(0, step - _BEFORE + 1) : step + 1])
                around += share
            samples.append(frames[:: 1 + len(frames) // 4].clone())  # a view would keep the whole store in memory
        lift = torch.ones(_BINS)
        if around.any():
            enough = 1e-4 * around.sum()  # a colour with less of the frame than this proves nothing
            lift = ((near + enough) / (around + enough)).clamp_min(1)
        rarity = _normalised(frequency.clamp_min(1e-7) ** -0.8, frequency)
        self.weight = _normalised(rarity * lift.square(), frequency)  # [4096]
        self.scale = 1.0
        pixels = sum(sample[..., 0].numel() for sample in samples)
        self.scale = pixels / sum(float(self(sample).sum()) for sample in samples)

    def to(self, device: torch.device) -> Self:
        """Move to the device of the frames to come."""
        self.weight = self.weight.to(device)
        return self

    def __call__(self, frames: Tensor) -> Tensor:
        """Weights, float [..., H, W], of frames, uint8 [..., H, W, 3]."""
        weight = self.weight[_colour(frames)]
        largest = F.max_pool2d(weight.flatten(0, -3), 5, stride=1, padding=2).view(weight.shape)
        return self.scale * (weight + largest / 8)


def _normalised(weight: Tensor, frequency: Tensor) -> Tensor:
    """`weight`, clipped, with mean one under `frequency`."""
    weight = (weight / (weight * frequency).sum()).clamp_max(_LIMIT)
    return weight / (weight * frequency).sum()


def _colour(frames: Tensor) -> Tensor:
    red, green, blue = (frames >> 4).int().unbind(-1)
    return red * 256 + green * 16 + blue


def _colour_shares(frames: Tensor) -> Tensor:
    """Share, float [4096], of each colour among the pixels of uint8 [..., 3]."""
    count = torch.bincount(_colour(frames).flatten(), minlength=_BINS).float()
    return count / count.sum()

"""How alike, how sharp and how well sorted: measures of frames and of scores, one number a frame or one in all."""

import torch
from torch import Tensor

from worldmodel.errors import require


def psnr(frames: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels, float32 [...], of frames, uint8 [..., H, W, 3].

    At most 58.9, even if they are identical: rounding to whole numbers alone leaves a mean squared error of 1/12.
    """
    error = (frames.float() - truth.float()).square().mean((-3, -2, -1))
    return 10 * torch.log10(255**2 / error.clamp(min=1 / 12))


def ssim(frames: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004; Gaussian window, sigma 1.5), float32 [...], of uint8 [..., H, W, 3].

    Raises `UserError` when the extra [metrics] is not installed.
    """
    functional = require("torchmetrics.functional.image", "metrics")
    flat = [x.flatten(0, -4).movedim(-1, 1).float() / 255 for x in (frames, truth)]
    pieces = zip(*(x.split(64) for x in flat), strict=True)  # its windows take far more memory than the frames
    values = [functional.structural_similarity_index_measure(a, b, data_range=1.0, reduction="none") for a, b in pieces]
    return torch.cat([v.reshape(-1) for v in values]).view(frames.shape[:-3])


def gradient_energy(frames: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, down plus across, pixels in [0, 1].

    float32 [...] of frames, uint8 [..., H, W, 3]. A dream that melts into a blur loses it;
    one that dissolves into noise gains it.
    """
    x = frames.float() / 255
    return x.diff(dim=-3).square().mean((-3, -2, -1)) + x.diff(dim=-2).square().mean((-3, -2, -1))


def mask_iou(mask: Tensor, truth: Tensor) -> float:
    """Intersection over union of all pixels together, bool [...]; nan when both are empty."""
    union = (mask | truth).sum()
    return float((mask & truth).sum() / union) if union else float("nan")


def roc_auc(scores: Tensor, labels: Tensor) -> float:
    """Probability that a positive scores above a negative, ties counting half; scores float [N], labels bool [N].

    nan when one of the two classes is empty.
    """
    positive, negative = scores[labels], scores[~labels].sort().values
    if not len(positive) or not len(negative):
        return float("nan")
    below = torch.searchsorted(negative, positive) + torch.searchsorted(negative, positive, right=True)
    return float(below.double().mean() / (2 * len(negative)))

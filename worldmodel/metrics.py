"""How alike, how sharp and how well sorted: measures of frames and of scores, one number a frame or one in all."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worldmodel.errors import require

Result = dict[str, Any]
"""Plain numbers, strings, lists and dicts: what JSON can hold."""


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
    measure = require("torchmetrics.functional.image", "metrics").structural_similarity_index_measure
    return _in_pieces(frames, truth, lambda a, b: measure(a, b, data_range=1.0, reduction="none"))


def ms_ssim(frames: Tensor, truth: Tensor) -> Tensor:
    """Multi-scale SSIM (Wang et al., 2003), float32 [...], of frames, uint8 [..., H, W, 3].

    Of its five scales as many as torchmetrics computes for this size, their exponents scaled to sum to one: three for
    84x84.
    Raises `UserError` when the extra [metrics] is not installed.
    """
    measure = require("torchmetrics.functional.image", "metrics").multiscale_structural_similarity_index_measure
    side = min(frames.shape[-3:-1])
    scales = max(n for n in range(1, 6) if n == 1 or side // (n - 1) ** 2 > 10)
    exponents = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:scales]
    betas = tuple(e / sum(exponents) for e in exponents)
    return _in_pieces(
        frames, truth, lambda a, b: measure(a, b, data_range=1.0, reduction="none", betas=betas, normalize="relu")
    )


def _in_pieces(frames: Tensor, truth: Tensor, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`measure` of float pictures [N, 3, H, W] in [0, 1], few at a time: its windows take far more than they do."""
    flat = [x.flatten(0, -4).movedim(-1, 1).float() / 255 for x in (frames, truth)]
    values = [measure(a, b).reshape(-1) for a, b in zip(*(x.split(64) for x in flat), strict=True)]
    return torch.cat(values).view(frames.shape[:-3])


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

"""Mu-law companding (ITU-T G.711): a sample of a wave as one of 256 classes, finer where it is quiet (§4.3)."""

import math

import torch
from torch import Tensor

CLASSES = 256
MU = CLASSES - 1


def mu_law(wave: Tensor) -> Tensor:
    """Classes, uint8 [*], of samples, float [*]; what lies outside [-1, 1] counts as -1 or 1.

    Each is the nearest of 256 even steps of sign(x) log(1 + 255 |x|) / log(256); silence is 128.
    """
    magnitude = torch.log1p(MU * wave.abs().clamp(max=1)) / math.log1p(MU)
    return ((wave.sign() * magnitude + 1) / 2 * MU + 0.5).to(torch.uint8)


def wave_of(classes: Tensor) -> Tensor:
    """Samples, float32 [*] in [-1, 1], of classes of any integer type [*]; the inverse of `mu_law` up to rounding."""
    compressed = classes.float() * (2 / MU) - 1
    return compressed.sign() * torch.expm1(compressed.abs() * math.log1p(MU)) / MU

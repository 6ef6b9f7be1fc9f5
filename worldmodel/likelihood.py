"""p(x|z) of 8-bit pixels: what a decoder's outputs say about an image, and the bits that this takes (§3.2, §4.1)."""

import math
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

LEVELS = 256  # values of a sub-pixel
VARIANCE = 0.06  # of sub-pixels as floats, in natural images


class Likelihood(Protocol):
    """How outputs of a decoder, float [B, 3 * C, H, W], speak about the sub-pixels of images, uint8 [B, H, W, 3]."""

    outputs: int
    """C: numbers that the decoder gives a sub-pixel. Those of a colour are neighbours: output i is of colour i // C."""

    def nats(self, outputs: Tensor, images: Tensor) -> Tensor:
        """-log p(x|z) of each image, float [B]: a sum over its H * W * 3 sub-pixels, independent of each other."""

    def best(self, outputs: Tensor) -> Tensor:
        """The picture that the outputs stand for, uint8 [B, H, W, 3]."""


class Categorical:
    """A softmax over the 256 values of each sub-pixel."""

    outputs = LEVELS

    def nats(self, outputs: Tensor, images: Tensor) -> Tensor:
        logits = rearrange(outputs, "b (c v) h w -> b v h w c", v=LEVELS)
        return F.cross_entropy(single(logits), images.long(), reduction="none").flatten(1).sum(1)

    def best(self, outputs: Tensor) -> Tensor:
        return rearrange(outputs, "b (c v) h w -> b h w c v", v=LEVELS).argmax(-1).to(torch.uint8)


class DiscretizedLogistic:
    """The mass that a logistic distribution puts on each value; the first and last value take its tails.

    The outputs are its mean, as a float in [-0.5, 0.5], and its log scale in the same unit.
    """

    outputs = 2

    def nats(self, outputs: Tensor, images: Tensor) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(outputs)  # [B, H, W, 3], in units of one value
        steepness = torch.exp(-log_scale)
        above = (images - mean + 0.5) * steepness  # in logits: where the value's interval ends
        below = above - steepness  # and where it begins
        # s(above) - s(below) = s(above) s(-below) (1 - exp(below - above)), and nothing cancels on the right.
        log_below = torch.where(images == 0, 0.0, F.logsigmoid(-below))
        log_above = torch.where(images == LEVELS - 1, 0.0, F.logsigmoid(above))
        inside = (images > 0) & (images < LEVELS - 1)
        log_width = torch.where(inside, torch.log(-torch.expm1(-steepness)), 0.0)
        return -(log_above + log_below + log_width).flatten(1).sum(1)

    def best(self, outputs: Tensor) -> Tensor:
        return self._mean_and_log_scale(outputs)[0].round().clamp(0, LEVELS - 1).to(torch.uint8)

    def _mean_and_log_scale(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = rearrange(single(outputs), "b (c v) h w -> v b h w c", v=2)
        # Beyond either bound a scale's gradient is lost in rounding; at the lower one a sub-pixel takes .008 bits.
        return (mean + 0.5) * (LEVELS - 1), log_scale.clamp(-8, 2) + math.log(LEVELS - 1)


class SquaredError:
    """Half the squared error, in units of VARIANCE: the paper's own choice for large images, and no likelihood.

    A Gaussian density of pixels in [0, 1] with unit variance could never take less than 9.33 bits a sub-pixel.
    """

    outputs = 1

    def nats(self, outputs: Tensor, images: Tensor) -> Tensor:
        return (outputs - as_floats(images)).square().flatten(1).sum(1) / (2 * VARIANCE)

    def best(self, outputs: Tensor) -> Tensor:
        values = outputs.float().add(0.5).mul(LEVELS - 1).round()
        return rearrange(values.clamp(0, LEVELS - 1).to(torch.uint8), "b c h w -> b h w c")


LIKELIHOODS: dict[str, Likelihood] = {
    "categorical": Categorical(),
    "logistic": DiscretizedLogistic(),
    "mse": SquaredError(),
}
LikelihoodName = Literal["categorical", "logistic", "mse"]


def as_floats(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in [-0.5, 0.5], channels last in memory."""
    return rearrange(images, "b h w c -> b c h w").to(dtype) / (LEVELS - 1) - 0.5


def bits_per_dim(nats: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Nats of whole images of H x W pixels, float [*], as bits a sub-pixel, float [*]."""
    height, width = image_size
    return nats / (math.log(2) * height * width * 3)


def single(tensor: Tensor) -> Tensor:
    """`tensor` in no less than single precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

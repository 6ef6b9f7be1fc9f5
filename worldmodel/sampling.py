"""From logits to codes: how every model here draws."""

from numbers import Real

import torch
from torch import Tensor

from worldmodel.errors import UserError


def invert_cdf(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Sample by inverting the CDF: logits [..., K], uniforms [..., 1] -> codes and their probabilities [..., 1].

    The probabilities are as precise as the uniforms.
    """
    probability = logits.softmax(-1, dtype=uniforms.dtype)
    cdf = probability.cumsum(-1)
    code = torch.searchsorted(cdf, uniforms * cdf[..., -1:], right=True).clamp_(max=logits.shape[-1] - 1)
    return code, probability.gather(-1, code)


def check_seed(seed: int) -> None:
    """Raise `UserError` for a seed that not every generator of random numbers takes."""
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed is from 0 to {2**32 - 1}, not {seed}.")


def check_temperature(temperature: float) -> None:
    """Raise `UserError` for a temperature that no distribution survives."""
    if not isinstance(temperature, Real) or not 1e-6 <= temperature <= 1e6:
        raise UserError(f"The temperature is from 1e-6 to 1e6 (1 as learned, below 1 likelier), not {temperature!r}.")

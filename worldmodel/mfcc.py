"""Mel cepstra: the shape of a mel spectrum in a few numbers (Davis & Mermelstein, 1980)."""

import torch
from torch import Tensor

from worldmodel.mel import log_mel

BANDS, COEFFICIENTS = 40, 13


def mfcc(wave: Tensor, sample_rate: int, hop: int, coefficients: int = COEFFICIENTS) -> Tensor:
    """Mel cepstra, [n] -> [ceil(n / hop), coefficients]: the mean of `log_mel` times cosines of 0, 1/2, 1, ... periods.

    The 0th is the mean itself; and log_mel = c[0] + 2 * sum of c[k] cos(pi k (band + 1/2) / 40) over k = 1 ... 39.
    """
    return cepstra(log_mel(wave, sample_rate, hop, BANDS), coefficients)


def cepstra(spectra: Tensor, coefficients: int) -> Tensor:
    """The first coefficients of log spectra's cosine transform, float [*, bands] -> [*, coefficients] (see `mfcc`)."""
    bands = spectra.shape[-1]
    band, k = torch.arange(bands) + 0.5, torch.arange(coefficients)
    cosines = torch.cos(torch.pi / bands * band[:, None] * k)  # [bands, coefficients]
    return spectra @ cosines.to(spectra) / bands

"""The log-mel spectrum, the usual description of speech sounds (Davis & Mermelstein, 1980)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

WINDOW = 0.025  # seconds
FLOOR = 1e-8
"""Of a band's power, a full-scale sine having about 1/4: below is what 16 bits, or mu-law's 8, add to silence."""


def log_mel(waves: Tensor, sample_rate: int, hop: int, bands: int) -> Tensor:
    """The natural logarithm of the power in mel bands, float [*, n] -> [*, ceil(n / hop), bands], of waves in [-1, 1].

    Spectrum i is that of a Hann window of 25 ms around sample (i + 1/2) * hop: the middle of the stretch of `hop`
    samples that latent i of a model stands for. Before its beginning and behind its end a wave is silent.
    """
    samples = waves.shape[-1]
    frames, length = -(-samples // hop), round(WINDOW * sample_rate)
    before = length // 2 - hop // 2
    after = (frames - 1) * hop + length - before - samples
    waves = pad(waves, (max(before, 0), max(after, 0)))[..., max(-before, 0) :]
    windows = waves.unfold(-1, length, hop)[..., :frames, :]  # [*, frames, length]
    hann = torch.hann_window(length, dtype=waves.dtype, device=waves.device)
    size = 1 << (length - 1).bit_length()
    power = (torch.fft.rfft(windows * hann, size).abs() / hann.sum()).square()  # [*, frames, size // 2 + 1]
    filters = mel_filters(bands, size // 2 + 1, sample_rate / 2, waves.device).to(waves.dtype)
    return (power @ filters.T).clamp(min=FLOOR).log()


def mel_filters(bands: int, frequencies: int, highest: float, device: torch.device | None = None) -> Tensor:
    """Triangles evenly spaced in mel, each reaching to its neighbours' tops: float32 [bands, frequencies].

    `frequencies` are evenly spaced from 0 to `highest` Hz.
    """
    mel = torch.linspace(0, 2595 * math.log10(1 + highest / 700), bands + 2, device=device)
    tops = 700 * (10 ** (mel / 2595) - 1)  # Hz
    rising = (torch.linspace(0, highest, frequencies, device=device) - tops[:-1, None]) / tops.diff()[:, None]
    return torch.minimum(rising[:-1], 1 - rising[1:]).clamp(min=0)

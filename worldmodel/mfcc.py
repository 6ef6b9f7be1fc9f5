"""The usual description of speech sounds: mel spectra and their cepstra (Davis & Mermelstein, 1980)."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from worldmodel.mel import mel_filters

BANDS, COEFFICIENTS = 40, 13
WINDOW = 0.025  # seconds
FLOOR = (
    1e-8  # power of a band, a full-scale sine having about 1/4: below is what 16 bits, or mu-law's 8, add to silence
)


def log_mel(wave: Tensor, sample_rate: int, hop: int) -> Tensor:
    """The natural logarithm of the power in each of 40 mel bands, [n] -> [ceil(n / hop), 40], of a wave in [-1, 1].

    Spectrum i is that of a Hann window of 25 ms around sample (i + 1/2) * hop: the middle of the stretch of `hop`
    samples that latent i of a model stands for. Before its beginning and behind its end a wave is silent.
    """
    frames, length = -(-len(wave) // hop), round(WINDOW * sample_rate)
    before = length // 2 - hop // 2
    wave = pad(wave, (max(before, 0), max((frames - 1) * hop + length - before - len(wave), 0)))[max(-before, 0) :]
    windows = wave.unfold(0, length, hop)[:frames]  # [frames, length]
    hann = torch.hann_window(length, dtype=wave.dtype, device=wave.device)
    size = 1 << (length - 1).bit_length()
    power = (torch.fft.rfft(windows * hann, size).abs() / hann.sum()).square()  # [frames, size // 2 + 1]
    bands = mel_filters(BANDS, size // 2 + 1, sample_rate / 2).to(wave)
    return (power @ bands.T).clamp(min=FLOOR).log()


def mfcc(wave: Tensor, sample_rate: int, hop: int, coefficients: int = COEFFICIENTS) -> Tensor:
    """Mel cepstra, [n] -> [ceil(n / hop), coefficients]: the mean of `log_mel` times cosines of 0, 1/2, 1, ... periods.

    The 0th is the mean itself; and log_mel = c[0] + 2 * sum of c[k] cos(pi k (band + 1/2) / 40) over k = 1 ... 39.
    """
    spectra = log_mel(wave, sample_rate, hop)
    band, k = torch.arange(BANDS) + 0.5, torch.arange(coefficients)
    cosines = torch.cos(torch.pi / BANDS * band[:, None] * k)  # [bands, coefficients]
    return spectra @ cosines.to(spectra) / BANDS

"""Who speaks, and how far one recording is from another: independent measures of what a model of speech says."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodel.mfcc import mfcc

HOP = 0.01  # seconds between cepstra
COEFFICIENTS = 25  # from the 0th, the loudness, which neither measure looks at


class VoiceClassifier:
    """Names speakers by their cepstra: linear discriminant analysis of their means and deviations over two seconds.

    It is fitted on real speech, and knows nothing of the models whose speech it judges.
    """

    def __init__(self, waves: Sequence[Tensor], speakers: Tensor, sample_rate: int) -> None:
        """`waves`: float [n] each; `speakers`: int64 [N], each of 0, 1, ..., S - 1 at least once."""
        self.sample_rate = sample_rate
        parts = [(part, int(s)) for wave, s in zip(waves, speakers, strict=True) for part in self._parts(wave)]
        features = torch.stack([self._describe(part) for part, _ in parts])  # [P, F]
        own = torch.tensor([speaker for _, speaker in parts])
        self.means = torch.stack([features[own == s].mean(0) for s in range(int(speakers.max()) + 1)])  # [S, F]
        around = features - self.means[own]
        covariance = around.T @ around / len(around)
        # Of few recordings only the larger directions are known well.
        ridge = (0.1 * covariance.diagonal().mean() + 1e-6) * torch.eye(len(covariance))
        self.precision = torch.linalg.inv(covariance + ridge)

    def __call__(self, wave: Tensor) -> int:
        """The number of the speaker who most likely says what is in a wave, float [n]."""
        described = torch.stack([self._describe(part) for part in self._parts(wave)])  # [P, F]
        away = described[:, None] - self.means  # [P, S, F]
        return int(((away @ self.precision) * away).sum((0, 2)).argmin())

    def _parts(self, wave: Tensor) -> list[Tensor]:
        length = 2 * self.sample_rate
        parts = [part for part in wave.split(length) if len(part) == length]
        return parts or [wave]

    def _describe(self, wave: Tensor) -> Tensor:
        cepstra = mfcc(wave, self.sample_rate, round(HOP * self.sample_rate), COEFFICIENTS)[:, 1:].double()
        return torch.cat([cepstra.mean(0), cepstra.std(0, correction=0)])


def mel_cepstral_distance(a: Tensor, b: Tensor, sample_rate: int) -> float:
    """How far the spectra of two waves of one length, float [n], are apart, in decibels (Kubichek, 1993).

    Column by column, without regard to loudness, by the first 24 mel cepstra.
    """
    hop = round(HOP * sample_rate)
    one, other = (mfcc(wave, sample_rate, hop, COEFFICIENTS)[:, 1:] for wave in (a, b))
    return float((2 * (one - other).square().sum(1)).sqrt().mean() * 10 / math.log(10))

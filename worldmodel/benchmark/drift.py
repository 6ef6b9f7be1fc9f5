"""How far a set of frames is from real ones, in a feature space that nothing was trained for.

The features of a frame are, for each cell of a 3x3 grid, the mean of its three colours and the logarithm of its mean
gradient energy: where it is how bright, of what colour, and how finely drawn. A dream that fades, melts, dissolves into
noise or turns into another place moves in them. They are nobody's Inception network: a drift is no FID, and compares
only with other drifts in the same store.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 3
WINDOW = 5  # a drift at horizon h is of the frames h - 4 to h together

Features = npt.NDArray[np.float64]


def frame_features(frames: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 36]."""
    x = frames.movedim(-1, 1).float() / 255
    energy = torch.zeros_like(x[:, :1])
    energy[..., :-1, :] += x.diff(dim=-2).square().mean(1, keepdim=True)
    energy[..., :-1] += x.diff(dim=-1).square().mean(1, keepdim=True)
    colour, energy = F.adaptive_avg_pool2d(x, GRID), F.adaptive_avg_pool2d(energy, GRID)
    return torch.cat([colour, torch.log10(energy + 1e-4)], 1).flatten(1)


class Drift:
    """Frechet distance to real frames, a feature: 0 for their own mean and covariance."""

    def __init__(self, real: Features) -> None:
        """`real`: the features of many real frames, [N, D]; each is measured in units of its own spread there."""
        self.shift, self.scale = real.mean(0), real.std(0) + 1e-6
        self.mean, self.covariance = moments(self._standard(real))

    def __call__(self, features: Features) -> float:
        """Of the features of two frames or more, [N, D]."""
        mean, covariance = moments(self._standard(features))
        return frechet_distance(mean, covariance, self.mean, self.covariance) / len(mean)

    def _standard(self, features: Features) -> Features:
        return (features - self.shift) / self.scale


def moments(features: Features) -> tuple[Features, Features]:
    """Mean [D] and covariance [D, D] of features [N, D]."""
    return features.mean(0), np.cov(features, rowvar=False)


def frechet_distance(mean_a: Features, cov_a: Features, mean_b: Features, cov_b: Features) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) of two Gaussians (Dowson and Landau, 1982).

    The trace of the root is the sum of the roots of the eigenvalues of C_a^1/2 C_b C_a^1/2, which is symmetric.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)

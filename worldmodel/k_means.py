"""K-means: a dictionary fitted at once to vectors that stay where they are."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worldmodel.errors import require

PASSES = 30  # over the data

Rows = npt.NDArray[np.float64]


def k_means(vectors: Tensor, k: int, *, seed: int) -> Tensor:
    """`k` centres, float64 [k, D], of vectors, float [N, D]; fewer, if no more can be told apart."""
    vq, rng = require("scipy.cluster.vq", "audio"), np.random.default_rng(seed)
    rows = vectors.cpu().double().numpy()
    centres, _ = vq.kmeans2(rows, _far_apart(rows, k, rng), iter=PASSES, minit="matrix")
    return torch.from_numpy(centres)


def _far_apart(rows: Rows, k: int, rng: np.random.Generator) -> Rows:
    """Up to `k` of the rows, each drawn by its squared distance to the nearest before it (k-means++, Arthur &
    Vassilvitskii, 2007): scipy's own measures all distances anew for each, which takes `k` times as long.
    """
    chosen = [int(rng.integers(len(rows)))]
    distance = np.full(len(rows), np.inf)
    while len(chosen) < k:
        distance = np.minimum(distance, np.square(rows - rows[chosen[-1]]).sum(1))
        if not distance.any():
            break  # the others are copies
        chosen.append(int(rng.choice(len(rows), p=distance / distance.sum())))
    return rows[chosen]

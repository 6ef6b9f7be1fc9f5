"""K-means: a dictionary fitted at once to vectors that stay where they are."""

import numpy as np
import torch
from torch import Tensor

from worldmodel.errors import require

PASSES = 30  # over the data


def k_means(vectors: Tensor, k: int, *, seed: int) -> Tensor:
    """`k` centres, float64 [k, D], of vectors, float [N, D]; fewer, if no more can be told apart."""
    vq = require("scipy.cluster.vq", "audio")
    rows = vectors.cpu().double().numpy()
    k = min(k, len(np.unique(rows, axis=0)))
    centres, _ = vq.kmeans2(rows, k, iter=PASSES, minit="++", rng=np.random.default_rng(seed))
    return torch.from_numpy(centres)

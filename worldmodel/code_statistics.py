"""What can be said of codes without a model."""

import torch
from torch import Tensor


class CodeStatistics:
    """What a neighbour says of a code: the one that was in its place a frame ago, or the one to its left.

    - unigram: how often each code occurs.
    - same: the neighbour's code with probability q, else the unigram of the others.
    - bigram: how often each code goes with the neighbour's, counts smoothed by 10 draws from the unigram.
    """

    def __init__(self, before: Tensor, after: Tensor, num_codes: int) -> None:
        """Fitted on codes, int64 [N], and their neighbours, `before`, int64 [N]."""
        counts = torch.bincount(before * num_codes + after, minlength=num_codes**2).view(num_codes, num_codes).double()
        self.unigram = (counts.sum(0) + 1) / (counts.sum() + num_codes)  # [K]
        self.same = float((counts.diagonal().sum() + 1) / (counts.sum() + 2))
        self.bigram = (counts + 10 * self.unigram) / (counts.sum(1, keepdim=True) + 10)  # [K, K]

    def probability(self, before: Tensor, after: Tensor) -> dict[str, Tensor]:
        """What each gives the codes `after`, float64 [N], whose neighbours are `before`, int64 [N]."""
        changed = (1 - self.same) * self.unigram[after] / (1 - self.unigram[before])
        return {
            "unigram": self.unigram[after],
            "same": torch.where(before == after, self.same, changed),
            "bigram": self.bigram[before, after],
        }

    def bits_per_code(self, before: Tensor, after: Tensor) -> dict[str, float]:
        """Bits that each takes for a code of `after`."""
        return {name: float(-p.log2().mean()) for name, p in self.probability(before, after).items()}

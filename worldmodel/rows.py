"""Random rows of tensors in memory."""

import numpy as np
import torch
from torch import Tensor

from worldmodel.errors import UserError

BLOCK = 1024  # items whose rows are drawn together


class RandomRows:
    """An endless sequence of random rows of some tensors of N rows each, each row as likely as any other.

    Item i is a function of (seed, i) and of the tensors alone, so an interrupted training asks for items from i on and
    sees what it would have seen; with another seed the rows are independent of these.

    Raises `UserError` when there are no rows.
    """

    def __init__(self, fields: dict[str, Tensor], *, seed: int = 0) -> None:
        self.fields, self.seed = fields, seed
        self.rows = len(next(iter(fields.values())))
        if not self.rows:
            raise UserError("There is nothing to learn from: not one image.")

    def batch(self, first: int, size: int) -> dict[str, Tensor]:
        """Items `first` to `first + size`, [size, ...] of every field."""
        blocks = range(first // BLOCK, (first + size - 1) // BLOCK + 1)
        drawn = [np.random.default_rng((self.seed, block)).integers(self.rows, size=BLOCK) for block in blocks]
        rows = torch.from_numpy(np.concatenate(drawn)[first % BLOCK :][:size])
        return {name: values[rows] for name, values in self.fields.items()}

"""Random rows of tensors in memory, as a PyTorch dataset."""

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from worldmodel.errors import UserError


class RandomRows(Dataset[dict[str, Tensor]]):
    """`size` random rows of some tensors of N rows each, with replacement, each row as likely as any other.

    Item i is a function of (seed, i) and of the tensors alone, so an interrupted training asks for items from i on and
    sees what it would have seen; with another seed the rows are independent of these.

    Raises `UserError` when there are no rows.
    """

    def __init__(self, fields: dict[str, Tensor], *, size: int, seed: int = 0) -> None:
        self.fields, self.size, self.seed = fields, size, seed
        self.rows = len(next(iter(fields.values())))
        if not self.rows:
            raise UserError("There is nothing to learn from: not one image.")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.size:
            raise IndexError(f"row {index} of {self.size}")
        row = int(np.random.default_rng((self.seed, index)).integers(self.rows))
        return {name: values[row] for name, values in self.fields.items()}

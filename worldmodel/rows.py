"""Random rows of tensors in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worldmodel.errors import UserError

BLOCK = 1024  # items whose rows are drawn together


def drawn(
    seed: int, first: int, size: int, draw: Callable[[np.random.Generator, int], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Items `first` to `first + size`, [size, ...], of an endless sequence that depends on the seed alone.

    `draw` makes the next n of them from a generator.
    """
    blocks = range(first // BLOCK, (first + size - 1) // BLOCK + 1)
    made = [draw(np.random.default_rng((seed, block)), BLOCK) for block in blocks]
    return np.concatenate(made)[first % BLOCK :][:size]


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
        rows = torch.from_numpy(drawn(self.seed, first, size, lambda rng, n: rng.integers(self.rows, size=n)))
        return {name: values[rows] for name, values in self.fields.items()}

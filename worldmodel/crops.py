"""Random crops of utterances in memory, as classes of their samples or as codes of their stretches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodel.errors import UserError
from worldmodel.rows import drawn


class Crops:
    """An endless sequence of random crops of utterances, from each as often as its share of everything.

    Utterances shorter than a crop are said again and again. Item i is a function of (seed, i) and of the utterances
    alone, so an interrupted training asks for items from i on and sees what it would have seen; with another seed the
    crops are independent of these.

    Raises `UserError` when there are no utterances.
    """

    def __init__(self, utterances: Sequence[Tensor], speakers: Tensor, length: int, seed: int = 0) -> None:
        """N utterances, of one integer type [n] each, of the speakers int64 [N]; crops of `length`."""
        if not utterances:
            raise UserError("There is nothing to learn from: not one utterance.")
        self.length, self.seed = length, seed
        self.speakers = speakers
        self.classes = torch.cat(list(utterances))
        self.lengths = torch.tensor([len(utterance) for utterance in utterances])  # [N]
        self.ends = self.lengths.cumsum(0)

    def batch(self, first: int, size: int) -> dict[str, Tensor]:
        """Items `first` to `first + size`: classes, as they were given, [size, length]; speakers int64 [size]."""
        numbers = drawn(self.seed, first, size, lambda rng, n: rng.random((n, 2)))
        where, start = torch.from_numpy(numbers).unbind(1)  # [size], in [0, 1)
        # Whoever has the sample at a random place of all.
        utterance = torch.searchsorted(self.ends, (where * len(self.classes)).long(), right=True)
        room = (self.lengths[utterance] - self.length + 1).clamp(min=1)
        begin = (start * room).long()
        at = (begin[:, None] + torch.arange(self.length)) % self.lengths[utterance, None]  # [size, length]
        place = (self.ends - self.lengths)[utterance, None] + at
        return {"classes": self.classes[place], "speakers": self.speakers[utterance]}

"""Random crops of utterances in memory."""

import numpy as np
import torch
from torch import Tensor

from worldmodel.audio_data import Audio
from worldmodel.errors import UserError
from worldmodel.mu_law import mu_law
from worldmodel.rows import BLOCK


class Crops:
    """An endless sequence of random crops of utterances, from each as often as its share of all samples.

    Utterances shorter than a crop are followed by silence. Item i is a function of (seed, i) and of the audio alone, so
    an interrupted training asks for items from i on and sees what it would have seen; with another seed the crops are
    independent of these.

    Raises `UserError` when there are no utterances.
    """

    def __init__(self, audio: Audio, length: int, seed: int = 0) -> None:
        """Crops of `length` samples."""
        if not len(audio):
            raise UserError("There is nothing to learn from: not one utterance.")
        self.length, self.seed = length, seed
        self.speakers = audio.speakers
        self.classes = torch.cat([mu_law(wave) for wave in audio.waves])  # uint8 [all samples]
        self.silence = mu_law(torch.zeros(1))
        self.lengths = torch.tensor([len(wave) for wave in audio.waves])  # [N]
        self.ends = self.lengths.cumsum(0)

    def batch(self, first: int, size: int) -> dict[str, Tensor]:
        """Items `first` to `first + size`: classes uint8 [size, length], mu-law; speakers int64 [size]."""
        blocks = range(first // BLOCK, (first + size - 1) // BLOCK + 1)
        drawn = [np.random.default_rng((self.seed, block)).random((BLOCK, 2)) for block in blocks]
        where, start = torch.from_numpy(np.concatenate(drawn)[first % BLOCK :][:size]).unbind(1)  # [size], in [0, 1)
        # Whoever has the sample at a random place of all.
        utterance = torch.searchsorted(self.ends, (where * len(self.classes)).long(), right=True)
        room = (self.lengths[utterance] - self.length + 1).clamp(min=1)
        begin = (start * room).long()
        at = begin[:, None] + torch.arange(self.length)  # [size, length], in the utterance
        inside = at < self.lengths[utterance, None]
        place = (self.ends - self.lengths)[utterance, None] + at.where(inside, 0)
        return {
            "classes": self.classes[place].where(inside, self.silence),
            "speakers": self.speakers[utterance],
        }

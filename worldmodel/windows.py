"""Random windows of recorded episodes, as a PyTorch dataset."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError

CACHE_BYTES = 8 * 2**30


def cached_frames(store: EpisodeStore) -> Tensor | None:
    """All frames, uint8 [F, H, W, 3], if there are no more than memory should be asked for."""
    size = int(store.lengths.sum() + len(store)) * math.prod(store.frame_shape)
    return torch.from_numpy(store.flat("frames")) if size <= CACHE_BYTES else None


class WindowDataset(Dataset[dict[str, Tensor]]):
    """`size` random windows of `length` successive frames of one episode, each as likely as any other.

    Item i is a function of (seed, i) and of the store alone, so an interrupted training asks for items from i on and
    sees what it would have seen; with another seed the windows are independent of these. An item is

        frames      uint8   [L, H, W, 3]
        actions     int64   [L - 1]          frames[t] --actions[t]--> frames[t + 1]
        rewards     float32 [L - 1]
        terminated  bool    [L - 1]

    `past` puts as many earlier frames of the episode in front, with the actions taken there, but nothing else of them.
    Before an episode's first frame it is repeated, with the action `store.n_actions`: none.

    An item reads the few chunks it needs, unless `frames` is given: one row a frame of the store, in its order, kept in
    memory and shared by the items (do not write to them). `cached_frames(store)` is a cache; the frames' codes make
    windows of codes. Safe in a `DataLoader`'s workers. Episodes appended later are not seen.

    Raises `UserError` when the store is empty or no episode is long enough.
    """

    def __init__(
        self,
        store: EpisodeStore,
        length: int,
        *,
        size: int,
        seed: int = 0,
        frames: Tensor | None = None,
        past: int = 0,
    ) -> None:
        if length < 2:
            raise UserError(f"A window needs 2 frames at least, not {length}.")
        if not len(store):
            raise UserError(f"{store.address} is empty: record some episodes first.")
        windows = np.maximum(store.lengths + 2 - length, 0)  # [N] an episode of T steps has T + 1 frames
        if not windows.any():
            raise UserError(
                f"The windows are too long for {store.address}: "
                f"the longest episode has {store.lengths.max() + 1} frames, the window needs {length}."
            )
        self.store, self.length, self.size, self.seed, self.past = store, length, size, seed, past
        self._ends = np.cumsum(windows)  # [N] windows up to and with episode i
        self._first_step = np.cumsum(store.lengths) - store.lengths  # [N]
        self._steps = {name: torch.from_numpy(store.flat(name)) for name in ("actions", "rewards", "terminated")}
        self._frames = frames

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        episode, start = self.locate(index)
        step = int(self._first_step[episode]) + start
        past = min(self.past, start)
        if self._frames is None:
            frames = torch.from_numpy(self.store.frames(episode, start - past, start + self.length))
        else:
            frame = step + episode  # each episode before this one has one frame more than steps
            frames = self._frames[frame - past : frame + self.length]
        item = {name: values[step : step + self.length - 1] for name, values in self._steps.items()}
        if self.past:
            missing = self.past - past
            frames = torch.cat([frames[:1].expand(missing, *frames.shape[1:]), frames])
            none = item["actions"].new_full((missing,), self.store.n_actions)
            item["actions"] = torch.cat([none, self._steps["actions"][step - past : step + self.length - 1]])
        return {"frames": frames, **item}

    def batch(self, first: int, size: int) -> dict[str, Tensor]:
        """Items `first` to `first + size`, one on top of another."""
        return default_collate([self[i] for i in range(first, first + size)])

    def locate(self, index: int) -> tuple[int, int]:
        """(episode, first frame) of window `index`."""
        if not 0 <= index < self.size:
            raise IndexError(f"window {index} of {self.size}")
        window = int(np.random.default_rng((self.seed, index)).integers(self._ends[-1]))
        episode = int(np.searchsorted(self._ends, window, side="right"))
        return episode, window - int(self._ends[episode - 1] if episode else 0)

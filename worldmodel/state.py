"""What a dream is made of: its state, its steps, its rollouts, and the starts it may begin from."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodel.errors import UserError
from worldmodel.video import VideoVQVAE

FRAMES_AT_ONCE = 64  # drawn together: a decoder needs far more memory than its frames

Index = int | np.integer | slice | Tensor | np.ndarray | Sequence[int] | Sequence[bool]


@dataclass
class WorldState:
    """Where each row's dream is. States index, clone and concatenate by rows; index a row twice to branch its dream.

    As with tensors, a slice is a view and any other choice a copy.
    """

    codes: Tensor  # int64 [B, R, h, w]: the last R frames, newest last; R is the reach of the prior
    actions: Tensor  # int64 [B, R-1]: taken between them

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Index) -> "WorldState":
        """The chosen rows; a single int keeps its batch axis, so that the result is a state again."""
        index = _row_index(rows)
        return self._map(lambda tensor: tensor[index])

    def __setitem__(self, rows: Index, other: "WorldState") -> None:
        """Overwrite the chosen rows by those of `other`."""
        index = _row_index(rows)
        for field in dataclasses.fields(self):
            getattr(self, field.name)[index] = getattr(other, field.name)

    def clone(self) -> "WorldState":
        return self._map(Tensor.clone)

    def to(self, device: torch.device | str) -> "WorldState":
        return self._map(lambda tensor: tensor.to(device))

    @staticmethod
    def cat(states: Sequence["WorldState"]) -> "WorldState":
        """All rows of all states, in order."""
        return WorldState(torch.cat([s.codes for s in states]), torch.cat([s.actions for s in states]))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "WorldState":
        return WorldState(function(self.codes), function(self.actions))


def _row_index(rows: Index) -> slice | Tensor:
    """What picks `rows` along the first axis alone and keeps that axis."""
    if isinstance(rows, slice):
        return rows
    try:
        index = torch.atleast_1d(torch.as_tensor(rows))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"Rows are chosen by whole numbers or bools, not by {rows!r}.") from error
    if index.is_floating_point() and index.numel():
        raise UserError(f"Rows are chosen by whole numbers or bools, not {str(index.dtype).removeprefix('torch.')}.")
    return index if index.dtype == torch.bool else index.long()  # torch takes uint8 for a mask; an empty list is float


@dataclass
class Step:
    """One imagined step of every row."""

    state: WorldState
    codes: Tensor  # int64 [B, h, w]
    reward: Tensor  # float32 [B]: expected reward of the step
    terminated: Tensor  # bool [B]: drawn with the predicted probability
    log_prob: Tensor  # float32 [B]: nats, of the drawn codes under the distribution that they were drawn from


@dataclass
class Rollout:
    """H imagined steps of every row; `rewards[:, t]` came with the arrival at `codes[:, t]`."""

    codes: Tensor  # int64 [B, H, h, w]
    rewards: Tensor  # float32 [B, H]
    terminated: Tensor  # bool [B, H]
    log_probs: Tensor  # float32 [B, H]
    state: WorldState  # after the last step
    past: Tensor  # int64 [B, R, h, w]: the codes before the first step
    video: VideoVQVAE

    def frames(self) -> Tensor:
        """Draw the imagined frames: uint8 [B, H, H_px, W_px, 3]."""
        pieces, past = [], self.past
        for codes in self.codes.split(FRAMES_AT_ONCE, 1):
            pieces.append(self.video.decode(codes, past=past))
            past = torch.cat([past, codes], 1)[:, -past.shape[1] :]
        return torch.cat(pieces, 1)

    def until_end(self, values: Tensor) -> Tensor:
        """Values of each step, [B, H]; 0 after the one that terminates a dream, for rows dream on."""
        over = self.terminated.cumsum(1) - self.terminated.long() > 0  # [B, H]: terminated at an earlier step
        return values.masked_fill(over, 0)

    def returns(self) -> Tensor:
        """What each dream pays in all, float32 [B]: its rewards up to and with the step that terminates it, if any."""
        return self.until_end(self.rewards).sum(1)


@dataclass
class ContextBank:
    """Starts for dreams: short recorded pasts, as codes. They travel with the model; the recordings need not."""

    codes: Tensor  # int64 [N, T, h, w]
    actions: Tensor  # int64 [N, T-1]

    def __len__(self) -> int:
        return len(self.codes)


def generators(seed: int | None, rows: int) -> list[np.random.Generator]:
    """One generator a row, seeded `seed`, `seed + 1`, ... as Gymnasium seeds vector environments.

    Raises `UserError` for a seed that is no whole number of 0 or more.
    """
    if seed is not None and not (isinstance(seed, int | np.integer) and seed >= 0):
        raise UserError(f"A seed is a whole number of 0 or more, not {seed!r}.")
    return [np.random.default_rng(None if seed is None else seed + i) for i in range(rows)]

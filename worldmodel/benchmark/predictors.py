"""What is benchmarked: anything that, given some frames and all actions, says which frames come."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.described import described
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.evaluation import stream_bits
from worldmodel.video import VideoVQVAE
from worldmodel.world import WorldModel


@dataclass
class Prediction:
    """H predicted frames of every row and, from those who have an opinion, what they pay and where they end."""

    frames: Tensor  # uint8 [B, H, H_px, W_px, 3]
    rewards: Tensor | None = None  # float [B, H]: expected
    terminated: Tensor | None = None  # bool [B, H]


class Predictor(Protocol):
    """The whole of what a model needs to be benchmarked; tensors come and go in the CPU's memory."""

    name: str

    def predict(self, frames: Tensor, actions: Tensor | None, horizon: int, seeds: Sequence[int]) -> Prediction:
        """The `horizon` frames that follow the given ones.

        Args:
            frames: uint8 [B, C, H_px, W_px, 3], what is given.
            actions: int64 [B, C - 1 + horizon], those between the given frames and those to follow; None withholds
                all of them.
            horizon: frames to predict.
            seeds: one a row; a row's prediction depends on its own inputs and seed alone.

        Raise `UserError` for what it cannot predict; the report says so, and goes on without it.
        """


@runtime_checkable
class Likelihood(Protocol):
    """What a model offers besides, if it can say how likely the truth was."""

    def bits_per_code(self, frames: Tensor, actions: Tensor | None) -> Tensor:
        """Mean bits of each frame but the first, given all before it: float [B, T-1] for frames uint8 [B, T, ...]."""


class WorldPredictor:
    """A world model of this package."""

    def __init__(self, name: str, world: WorldModel, *, temperature: float = 1.0) -> None:
        self.name, self.world, self.temperature = name, world, temperature

    def predict(self, frames: Tensor, actions: Tensor | None, horizon: int, seeds: Sequence[int]) -> Prediction:
        actions = self._actions(frames, actions, frames.shape[1] - 1 + horizon)
        given = frames.shape[1] - 1
        state = self.world.observe(frames, actions[:, :given])
        rngs = [np.random.default_rng(seed) for seed in seeds]
        dream = self.world.imagine(state, actions[:, given:], rngs=rngs, temperature=self.temperature)
        return Prediction(dream.frames().cpu(), dream.rewards.cpu(), dream.terminated.cpu())

    @torch.no_grad()
    def bits_per_code(self, frames: Tensor, actions: Tensor | None) -> Tensor:
        actions = self._actions(frames, actions, frames.shape[1] - 1)
        return stream_bits(self.world.dynamics, self.world.video.encode(frames), actions.to(self.world.device)).cpu()

    def _actions(self, frames: Tensor, actions: Tensor | None, length: int) -> Tensor:
        return torch.full((len(frames), length), self.world.no_action) if actions is None else actions


FOLLOW = 16  # frames after a moment that make it worth copying


class RepeatLast:
    """The last given frame, held."""

    name = "repeat last"

    def predict(self, frames: Tensor, actions: Tensor | None, horizon: int, seeds: Sequence[int]) -> Prediction:
        return Prediction(frames[:, -1:].expand(-1, horizon, -1, -1, -1))


class MeanFrame:
    """The mean of all frames of the training episodes, held: what minimises the error of one who has seen nothing."""

    name = "mean frame"

    def __init__(self, training: EpisodeStore) -> None:
        total, count = np.zeros(training.frame_shape, np.float64), 0
        for i in range(len(training)):
            frames = training.frames(i)
            total += frames.sum(0, np.float64)
            count += len(frames)
        self.mean = torch.from_numpy(np.rint(total / count).astype(np.uint8))

    def predict(self, frames: Tensor, actions: Tensor | None, horizon: int, seeds: Sequence[int]) -> Prediction:
        return Prediction(self.mean.expand(len(frames), horizon, -1, -1, -1))


class NearestNeighbour:
    """What followed the most similar moment of the training episodes, copied.

    Moments are compared by their last two frames, reduced to 12x12, in squared error; those that little follows
    do not count. Where the copied recording ends, the last two copied frames are matched in turn, and copying goes on
    from there.
    """

    name = "nearest neighbour"

    def __init__(self, training: EpisodeStore) -> None:
        self.training = training
        small = [_small(torch.from_numpy(training.frames(i))) for i in range(len(training))]
        follow = min(FOLLOW, max(len(s) for s in small) - 2)
        if follow < 1:
            raise UserError(f"No episode of {training.address} has three frames, as a nearest neighbour needs.")
        self._moments = torch.cat(
            [torch.cat([s[:-1], s[1:]], 1)[: max(len(s) - 1 - follow, 0)] for s in small]
        )  # [M, D]
        # The episode of each moment, and its frame after it.
        self._next = [(i, frame) for i, s in enumerate(small) for frame in range(2, len(s) - follow + 1)]

    def predict(self, frames: Tensor, actions: Tensor | None, horizon: int, seeds: Sequence[int]) -> Prediction:
        return Prediction(torch.stack([self._copy(row[-2:], horizon) for row in frames]))

    def _copy(self, frames: Tensor, horizon: int) -> Tensor:
        """uint8 [1 or 2, H, W, 3] -> uint8 [horizon, H, W, 3]."""
        copied = frames
        while (missing := horizon + len(frames) - len(copied)) > 0:
            query = torch.cat([_small(copied[-2:][:1]), _small(copied[-1:])], 1)  # [1, D]
            episode, first = self._next[int(torch.cdist(query, self._moments).argmin())]
            copied = torch.cat([copied, torch.from_numpy(self.training.frames(episode, first, first + missing))])
        return copied[len(frames) :]


class Reconstruction:
    """The true frames through a tokenizer and back: no dream made of its codes can be expected to be better.

    It is shown the truth, so it is no `Predictor`.
    """

    def __init__(self, name: str, video: VideoVQVAE) -> None:
        self.name, self.video = name, video

    def redraw(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> the same."""
        return self.video.decode(self.video.encode(frames)).cpu()


def check_prediction(prediction: Prediction, frames: Tensor, horizon: int, name: str) -> None:
    """Raise `UserError` when a predictor returned something else than it was asked for."""
    if not isinstance(prediction, Prediction):
        raise UserError(f"{name} must return a Prediction of its frames, not a {type(prediction).__name__}.")
    for what, values in vars(prediction).items():
        if not isinstance(values, Tensor) and (values is not None or what == "frames"):
            raise UserError(f"{name} must predict {what} as a tensor, not as a {described(values)}.")
    for what in ("rewards", "terminated"):
        values = getattr(prediction, what)
        if values is None:
            continue
        if tuple(values.shape) != (len(frames), horizon):
            raise UserError(f"{name} must predict {what} {[len(frames), horizon]}, not {list(values.shape)}.")
        if not values.float().isfinite().all():
            raise UserError(f"{name} must predict finite {what}.")
    if prediction.terminated is not None and prediction.terminated.dtype != torch.bool:
        raise UserError(f"{name} must predict terminated as bools, not as {described(prediction.terminated)}.")
    expected = (len(frames), horizon, *frames.shape[2:])
    if prediction.frames.dtype != torch.uint8 or tuple(prediction.frames.shape) != expected:
        raise UserError(f"{name} must predict uint8 frames {list(expected)}, not {described(prediction.frames)}.")


def _small(frames: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> float [N, 432]."""
    return F.adaptive_avg_pool2d(frames.movedim(-1, 1).float(), 12).flatten(1)

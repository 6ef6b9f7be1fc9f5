"""What is measured of every predicted frame: beside the true one, where it is known, and by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worldmodel.benchmark.drift import frame_features
from worldmodel.benchmark.inverse import InverseDynamics, actions_found
from worldmodel.benchmark.protocols import Context
from worldmodel.episodes import EpisodeStore
from worldmodel.metrics import ms_ssim, psnr, ssim

Values = npt.NDArray[np.float32]
Pairwise = Callable[[Tensor, Tensor], Tensor]
"""Predicted and true frames, uint8 [N, H, W, 3] each -> float [N]."""

MOVING, STILL = 0.5, 0.25  # of the mean change: real frames that move, or stand still, change by more, or less

Limits = tuple[float | None, float | None]
"""The least and the most that something can be, where there is such."""


@dataclass(frozen=True)
class Metric:
    """What a person needs to read a number."""

    about: str
    better: int
    """1: more is better; -1: less is; 0: the truth's own value is best."""
    digits: int = 3
    limits: Limits = (None, None)


METRICS: dict[str, Metric] = {
    "psnr": Metric("peak signal-to-noise ratio, dB", 1, 1),
    "ssim": Metric("structural similarity", 1, 3, (-1, 1)),
    "ms_ssim": Metric("multi-scale structural similarity, as many of the five scales as the frames have room for", 1),
    "lpips": Metric("learned perceptual distance", -1, 3, (0, None)),
    "psnr_best": Metric("PSNR of the best sample a context, at each horizon by itself", 1, 1),
    "ssim_best": Metric("SSIM of the best sample a context, at each horizon by itself", 1, 3, (-1, 1)),
    "ms_ssim_best": Metric("MS-SSIM of the best sample a context, at each horizon by itself", 1),
    "lpips_best": Metric("LPIPS of the best sample a context, at each horizon by itself", -1, 3, (0, None)),
    "bits_per_code": Metric("bits a code of the true frame, given all true frames before it", -1, 2, (0, None)),
    "action_fidelity": Metric(
        "how often a judge trained on real pairs of frames finds the action taken, steps 0.8 h to h", 1, 3, (0, 1)
    ),
    "drift": Metric("Frechet distance to real frames in a fixed feature space, a feature; not FID", -1, 2, (0, None)),
    "fid": Metric(
        "Frechet Inception distance to real frames, biased upwards by how few these are: no published value is like it",
        -1,
        1,
    ),
    "liveliness": Metric(
        "change a step under actions that move, of what real frames change by, steps 0.8 h to h", 0, 2, (0, None)
    ),
    "restlessness": Metric(
        "change a step while real frames stand still, of the real mean change, steps 0.8 h to h", 0, 2, (0, None)
    ),
    "consistency": Metric("turn n = h / 2 steps and turn back: how much closer to the first view one ends", 1, 2),
    "reward_error": Metric("absolute error of the rewards summed so far", -1, 2, (0, None)),
    "reward_bias": Metric("imagined less true rewards summed so far", 0, 2),
    "alive": Metric("share that has not ended yet", 0, 2, (0, 1)),
}


class Activity:
    """How much real frames change from one to the next, by the action taken and the one before it."""

    def __init__(self, store: EpisodeStore) -> None:
        n = store.n_actions
        total, count = np.zeros((n, n)), np.zeros((n, n))
        for episode in store:
            change = frame_changes(torch.from_numpy(episode.frames)).numpy()  # [T]
            np.add.at(total, (episode.actions[:-1], episode.actions[1:]), change[1:])
            np.add.at(count, (episode.actions[:-1], episode.actions[1:]), 1)
        self.mean = float(total.sum() / max(count.sum(), 1))
        by_action = (total.sum(0) + self.mean) / (count.sum(0) + 1)
        # A pair that hardly ever occurs is taken for what its second action does on the whole.
        self.expected = (total + 4 * by_action) / (count + 4)  # [previous, action]


def frame_changes(frames: Tensor) -> Tensor:
    """Mean absolute difference of each frame to the next, in grey levels: uint8 [T+1, H, W, 3] -> float [T]."""
    pairs = zip(frames[:-1].split(256), frames[1:].split(256), strict=True)
    return torch.cat([(after.float() - before.float()).abs().mean((1, 2, 3)) for before, after in pairs])


class Measures:
    """Everything that is measured of one row of predicted frames; made once a store."""

    def __init__(
        self, horizons: list[int], activity: Activity, judge: InverseDynamics | None, lpips: Pairwise | None
    ) -> None:
        self.horizons = np.array(horizons)
        self.activity, self.judge = activity, judge
        self.pairwise: dict[str, Pairwise] = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
        if lpips is not None:
            self.pairwise["lpips"] = lpips

    def __call__(self, context: Context, frames: Tensor) -> tuple[dict[str, Values], Values]:
        """Of the frames predicted for a context, uint8 [N, H, W, 3] with N up to all that are imagined.

        Returns values by name, [horizons], nan where they are not known, and the features of all frames for the drift,
        [imagined, D].
        """
        imagined = len(context.actions) - context.given + 1
        result = {name: np.full(len(self.horizons), np.nan, np.float32) for name in self.pairwise}
        compared = self.horizons <= min(context.known, len(frames))
        at = torch.from_numpy(self.horizons[compared] - 1)
        truth = context.frames[context.given :]
        for name, measure in self.pairwise.items():
            if len(at):
                result[name][compared] = measure(frames[at], truth[at]).numpy()
        line = torch.cat([context.frames[context.given - 1][None], frames])  # the last given frame leads in
        actions = context.actions[context.given - 1 :][: len(frames)]
        of_steps = self._activity(actions, context, frame_changes(line).numpy())
        if self.judge is not None:
            of_steps["action_fidelity"] = actions_found(self.judge, line, actions).float().numpy()
        for values in of_steps.values():
            values[0] = np.nan  # from a real frame to a predicted one: not all of that is movement
        result |= {name: self._trailing(values, imagined) for name, values in of_steps.items()}
        features = np.full((imagined, frame_features(frames[:1]).shape[1]), np.nan, np.float32)
        features[: len(frames)] = torch.cat([frame_features(part) for part in frames.split(256)]).numpy()
        return result, features

    def _activity(self, actions: Tensor, context: Context, change: Values) -> dict[str, Values]:
        """The change of each step, [N], and what it is compared with, where the action moves, and does not."""
        before = torch.cat([context.actions[max(context.given - 2, 0)][None], actions[:-1]])
        expected = self.activity.expected[before.numpy(), actions.numpy()]
        moving = expected >= MOVING * self.activity.mean
        truly = np.full(len(change), np.inf)
        known = frame_changes(context.frames[context.given - 1 :]).numpy()[: len(change)]
        truly[: len(known)] = known
        still = truly <= STILL * self.activity.mean
        return {
            "change_moving": np.where(moving, change, np.nan),
            "expected_moving": np.where(moving, expected, np.nan),
            "change_still": np.where(still, change / self.activity.mean, np.nan),
        }

    def _trailing(self, values: Values, imagined: int) -> Values:
        """The mean, at each measured horizon h, of the steps after 0.8 h up to h that are known: [N] -> [horizons].

        Of single steps under single actions there are few; where it is late, a few steps more or less do not matter.
        """
        padded = np.full(imagined + 1, np.nan)
        padded[1 : len(values) + 1] = values
        total, count = np.nan_to_num(padded).cumsum(), (~np.isnan(padded)).cumsum()
        start = self.horizons - np.maximum(self.horizons // 5, 1)
        known = count[self.horizons] - count[start]
        mean = (total[self.horizons] - total[start]) / np.maximum(known, 1)
        return np.where(known > 0, mean, np.nan).astype(np.float32)


def best_of(name: str, values: Values) -> Values:
    """The best sample of every context: [contexts, samples, horizons] -> [contexts, horizons]."""
    return values.max(1) if METRICS[name].better > 0 else values.min(1)

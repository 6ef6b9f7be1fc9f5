"""A model from elsewhere in `worldmodel benchmark`: one class with a name and `predict`, and a function that makes it.

worldmodel benchmark --predictor docs.foreign_model:make --model dmlab-seekavoid --store heldout --out runs/report
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodel.benchmark.predictors import Prediction


class Foreign:
    name = "last frame, moved on"  # your model's; this one keeps changing as it did between the last two given frames

    def predict(self, frames: Tensor, actions: Tensor | None, horizon: int, seeds: Sequence[int]) -> Prediction:
        """uint8 [B, C, H, W, 3], int64 [B, C - 1 + horizon] or None -> uint8 [B, horizon, H, W, 3]."""
        state = frames[:, -1].float()  # yours: reset the model, show it `frames` and the first C - 1 actions
        change = state - frames[:, max(frames.shape[1] - 2, 0)].float()
        predicted = []
        for _ in range(horizon):
            state = state + change  # yours: step the model with actions[:, C - 1 + step], drawing from seeds[row]
            predicted.append(state.clamp(0, 255).to(torch.uint8))
        return Prediction(torch.stack(predicted, 1))  # and rewards=, terminated= if it predicts them


def make() -> Foreign:
    return Foreign()  # yours: load the weights here

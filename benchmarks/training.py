"""How long a step of each training takes on this machine, and what of it is the optimizer.

    python benchmarks/training.py

Of each model with its command's default settings, on noise for data, single-threaded: the median of STEPS steps. Beside
it the same with PyTorch's own Muon, and with memory as glibc hands it out by itself; each in a process of its own.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from worldmodel import audio, image
from worldmodel.allocator import keep_freed_memory
from worldmodel.audio_data import Audio
from worldmodel.audio_objectives import AudioObjective
from worldmodel.audio_recipe import AudioRecipe
from worldmodel.episodes import Episode, EpisodeStore
from worldmodel.image_data import Images
from worldmodel.image_objectives import ImageObjective
from worldmodel.image_recipe import ImageRecipe
from worldmodel.objectives import VideoObjective
from worldmodel.optimizer import Optimizer
from worldmodel.recipe import Recipe
from worldmodel.step import TrainingStep
from worldmodel.training import Objective
from worldmodel.video import VideoVQVAE, video_preset
from worldmodel.world import fast_layout

STEPS, BEFORE = 5, 3
OUT = Path(__file__).with_suffix(".json")
VARIANTS = {"as it is": (True, True), "PyTorch's Muon": (False, True), "glibc's own ways": (True, False)}


def speech() -> tuple[Objective, int]:
    recipe = AudioRecipe("25hz")
    recordings = Audio([torch.rand(10**6) - 0.5], torch.zeros(1, dtype=torch.long), ("one",), ("a",), None, 16_000)
    model = audio.AudioVQVAE(audio.PRESETS[recipe.preset])
    return AudioObjective(model, recordings, recipe.heard, recipe.spoken), recipe.batch


def images() -> tuple[Objective, int]:
    recipe = ImageRecipe("dmlab")
    pixels = torch.randint(256, (64, 84, 84, 3), dtype=torch.uint8)
    return ImageObjective(
        fast_layout(image.ImageVQVAE(image.PRESETS[recipe.preset])), Images(pixels, None, ())
    ), recipe.batch


def video() -> tuple[Objective, int]:
    recipe = Recipe()
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore.create(
            f"{folder}/store",
            frame_shape=(84, 84, 3),
            n_actions=2,
            provenance={"env_id": "noise", "action_meanings": ["a", "b"], "frame_skip": 1, "fps": 15.0},
        )
        steps, no = 60, np.zeros(60, bool)
        frames = np.random.default_rng(0).integers(0, 256, (steps + 1, 84, 84, 3), np.uint8)
        store.append(Episode(frames, no.astype(int), no.astype(np.float32), no, no))
        objective = VideoObjective(fast_layout(VideoVQVAE(video_preset(recipe.preset, (84, 84)))), store, size=1000)
    return objective, recipe.tokenizer_batch


TRAININGS: dict[str, Callable[[], tuple[Objective, int]]] = {
    "tokenizer of a world (compact)": video,
    "images (dmlab)": images,
    "speech (25hz)": speech,
}


class PyTorchs(Optimizer):
    """PyTorch's Muon for the kernels, as matrices beside them, and AdamW for the rest."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._theirs, self._kernels = self._kernels, []
        self._matrices, self._momenta = self._momenta, []
        self._muon = torch.optim.Muon(self._matrices, adjust_lr_fn="match_rms_adamw")

    def step(self, learning_rate: torch.Tensor) -> None:
        for kernel, matrix in zip(self._theirs, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        self._muon.step()
        super().step(learning_rate)


def measure(training: str, variant: str) -> dict[str, float]:
    """Median seconds of a step's parts."""
    torch.set_num_threads(1)
    ours, kept = VARIANTS[variant]
    if kept:
        keep_freed_memory()
    objective, size = TRAININGS[training]()
    optimizer = (Optimizer if ours else PyTorchs)(objective.model)
    step, whole, moving = optimizer.step, [], []

    def timed(learning_rate: torch.Tensor) -> None:
        start = time.perf_counter()
        step(learning_rate)
        moving.append(time.perf_counter() - start)

    optimizer.step = timed  # type: ignore[method-assign]
    take = TrainingStep(objective.loss, optimizer, torch.device("cpu"))
    for i in range(BEFORE + STEPS):
        batch = objective.dataset.batch(i * size, size)
        start = time.perf_counter()
        take(batch, 1e-4)
        whole.append(time.perf_counter() - start)
    return {"step": statistics.median(whole[BEFORE:]), "optimizer": statistics.median(moving[BEFORE:])}


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], sys.argv[2])))
        return
    result: dict[str, dict[str, dict[str, float]]] = {}
    print("| training | variant | a step, s | times as it is | of it the optimizer, s |\n|---|---|---|---|---|")
    for training in TRAININGS:
        result[training] = {}
        for variant in VARIANTS:
            found = subprocess.run(
                [sys.executable, __file__, training, variant], check=True, capture_output=True, text=True
            )
            parts = result[training][variant] = json.loads(found.stdout)
            times = parts["step"] / result[training]["as it is"]["step"]
            row = f"| {training} | {variant} | {parts['step']:.2f} | {times:.2f} | {parts['optimizer']:.2f} |"
            print(row, flush=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

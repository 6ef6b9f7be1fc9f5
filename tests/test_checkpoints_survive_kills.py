"""A training killed at any moment leaves a checkpoint that loads, and goes on from it."""

import random
from pathlib import Path

from kills import kill_at_a_moment
from test_training import Regression
from torch import Tensor

from worldmodel.files import read_tensors_and_metadata
from worldmodel.step import Batch
from worldmodel.training import FitConfig, fit


def test_a_killed_training_always_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """Twenty kills at random moments, checkpointing after every step; each run goes on from the one before."""
    rng, step = random.Random(0), 0
    for kill in range(20):
        kill_at_a_moment(train_and_tell, tmp_path / "run", tmp_path / f"begun{kill}", rng)
        if (tmp_path / "run" / "checkpoint.safetensors").exists():
            tensors, metadata = read_tensors_and_metadata(tmp_path / "run" / "checkpoint.safetensors")
            assert int(metadata["step"]) >= step and len(tensors) > 4
            step = int(metadata["step"])
    assert step > 20  # most runs took a step or more


def train_and_tell(folder: Path, begun: Path) -> None:
    class Telling(Regression):
        def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            if self.calls == 1:
                begun.touch()  # a step from where the one before it was killed
            return super().loss(batch)

    fit(Telling(100_000), FitConfig(100_000, 2, 1e-2, checkpoint_every=0.0), folder)

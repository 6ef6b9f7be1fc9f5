"""A training killed at any moment leaves a checkpoint that loads, and goes on from it."""

import multiprocessing
import random
import time
from pathlib import Path

from test_training import Regression
from torch import Tensor

from worldmodel.files import read_tensors_and_metadata
from worldmodel.step import Batch
from worldmodel.training import FitConfig, fit


def test_a_killed_training_always_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """Twenty kills at random moments, checkpointing after every step; each run goes on from the one before."""
    processes = multiprocessing.get_context("forkserver")  # forks from a process that has imported it already
    processes.set_forkserver_preload(["worldmodel.training"])
    rng, step = random.Random(0), 0
    for kill in range(20):
        begun = tmp_path / f"begun{kill}"
        process = processes.Process(target=train_and_tell, args=(tmp_path / "run", begun))
        process.start()
        deadline = time.monotonic() + 60
        while not begun.exists() and time.monotonic() < deadline:  # from where the one before it was killed
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.join()
        if (tmp_path / "run" / "checkpoint.safetensors").exists():
            tensors, metadata = read_tensors_and_metadata(tmp_path / "run" / "checkpoint.safetensors")
            assert int(metadata["step"]) >= step and len(tensors) > 4
            step = int(metadata["step"])
    assert step > 20  # most runs took a step or more


def train_and_tell(folder: Path, begun: Path) -> None:
    class Telling(Regression):
        def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            if self.calls == 1:
                begun.touch()
            return super().loss(batch)

    fit(Telling(100_000), FitConfig(100_000, 2, 1e-2, checkpoint_every=0.0), folder)

"""A training killed at any moment leaves a checkpoint that loads, and goes on from it."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from worldmodel.files import read_tensors_and_metadata

ROOT = Path(__file__).parent.parent

ENDLESS = """
import sys
from pathlib import Path
from tests.test_training import Regression
from worldmodel.training import FitConfig, fit
class Announced(Regression):
    def loss(self, batch):
        if self.calls == 1:
            print("begun", flush=True)
        return super().loss(batch)
fit(Announced(100_000), FitConfig(100_000, 2, 1e-2, checkpoint_every=0.0), Path(sys.argv[1]))
"""


def test_a_killed_training_always_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """Twenty kills at random moments, checkpointing after every step; each run goes on from the one before."""
    random.seed(0)
    step = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"  # from where the one before it was killed
        time.sleep(random.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "checkpoint.safetensors").exists():
            tensors, metadata = read_tensors_and_metadata(tmp_path / "checkpoint.safetensors")
            assert int(metadata["step"]) >= step and len(tensors) > 4
            step = int(metadata["step"])
    assert step > 0

"""The documented learner that knows only `gymnasium.make_vec` runs in dreams, and learns where there is a way."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray
from tiny_world import tiny_world

ROOT = Path(__file__).parents[1]


def test_it_runs_in_dreams_from_the_command_line(tmp_path: Path) -> None:
    tiny_world().save_pretrained(tmp_path / "tiny")
    command = [sys.executable, "docs/plain_learner.py", "--model", tmp_path / "tiny", "--horizon", "9"]
    run = subprocess.run([*command, "--steps", "600", "--num-envs", "8"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    steps, _, _, earned = line.split()
    assert steps == "128" and np.isfinite(float(earned))


class Echo(gymnasium.Env[NDArray[np.int64], np.int64]):
    """Pays for the action that the first code names."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (1, 2), np.int64)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.int64], dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._look(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.int64], float, bool, bool, dict[str, Any]]:
        paid, self._time = float(action == self._codes[0, 0]), self._time + 1
        return self._look(), paid, False, self._time == 10, {}

    def _look(self) -> NDArray[np.int64]:
        self._codes = self.np_random.integers(2, size=(1, 2))
        return self._codes


def test_it_learns() -> None:
    learn = runpy.run_path(str(ROOT / "docs" / "plain_learner.py"))["learn"]
    returns = learn(SyncVectorEnv([Echo] * 16), 16_000)
    assert np.mean(returns[:32]) < 6 and np.mean(returns[-32:]) > 7.5  # of 10; by chance 5

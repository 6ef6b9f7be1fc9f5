"""Processes that are killed while they work, at a random moment."""

import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path


def kill_at_a_moment(work: Callable[[Path, Path], None], folder: Path, begun: Path, rng: random.Random) -> None:
    """Run `work(folder, begun)` in a process of its own and SIGKILL it within 0.3 s from when it makes `begun`."""
    processes = multiprocessing.get_context("forkserver")  # forks from a process that has imported these already
    processes.set_forkserver_preload(["scripts.collect", "worldmodel.training"])
    process = processes.Process(target=work, args=(folder, begun))
    process.start()
    deadline = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.3))
    process.kill()
    process.join()
    assert begun.exists()

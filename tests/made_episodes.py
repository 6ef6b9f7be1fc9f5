"""Small episodes made up for tests, each different and each frame of them different."""

from pathlib import Path

import numpy as np

from worldmodel.episodes import STEP_FIELDS, Episode, EpisodeStore, Provenance

FRAME_SHAPE = (6, 8, 3)
N_ACTIONS = 3
PROVENANCE = Provenance(env_id="made/Up-v0", action_meanings=["left", "right", "stay"], frame_skip=4, fps=15)


def make_episode(steps: int, seed: int = 0, frame_shape: tuple[int, int, int] = FRAME_SHAPE) -> Episode:
    """A random episode that is a function of its arguments alone."""
    rng = np.random.default_rng(seed)
    ends = np.zeros(steps, np.bool_)
    ends[-1] = True
    return Episode(
        frames=rng.integers(256, size=(steps + 1, *frame_shape), dtype=np.uint8),
        actions=rng.integers(N_ACTIONS, size=steps),
        rewards=rng.normal(size=steps),
        terminated=ends & (seed % 2 == 0),
        truncated=ends & (seed % 3 == 0),
        seed=seed if seed % 5 else None,
    )


def make_store(address: str | Path, lengths: list[int]) -> EpisodeStore:
    """A store of the episodes `make_episode(lengths[i], seed=i)`."""
    store = EpisodeStore.create(str(address), frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE)
    for seed, steps in enumerate(lengths):
        store.append(make_episode(steps, seed))
    return store


def assert_same(one: Episode, other: Episode) -> None:
    assert one.seed == other.seed
    for name in ("frames", *STEP_FIELDS):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)

"""How much pixels count."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.made_episodes import make_store
from worldmodel.episodes import Episode, EpisodeStore
from worldmodel.salience import PixelWeight


def test_a_weight_is_one_on_average(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [30, 50, 40])
    weight = PixelWeight(store)
    frames = torch.from_numpy(store.flat("frames"))
    assert float(weight(frames).mean()) == pytest.approx(1, rel=0.05)  # some frames of each episode stand for all


def test_a_store_is_read_episode_by_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store", [30] * 8)
    seen: list[weakref.ref[np.ndarray]] = []
    most = 0

    def read(self: EpisodeStore) -> Iterator[Episode]:
        nonlocal most
        for i in range(len(self)):
            episode = self[i]
            seen.append(weakref.ref(episode.frames))
            gc.collect()
            most = max(most, sum(frames() is not None for frames in seen))
            yield episode

    monkeypatch.setattr(EpisodeStore, "__iter__", read)
    PixelWeight(store)
    assert 1 <= most <= 2  # the one that is read, and the one before it

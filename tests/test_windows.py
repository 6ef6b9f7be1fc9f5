"""Windows: whole, of one episode, each as likely as another, and the same whenever and wherever they are asked for."""

import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import make_episode, make_store
from scipy.stats import chisquare
from torch import Tensor
from torch.utils.data import DataLoader

from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.windows import WindowDataset


def new_store(lengths: list[int]) -> EpisodeStore:
    return make_store(f"memory://{uuid.uuid4()}", lengths)


def cached(store: EpisodeStore) -> Tensor:
    return torch.from_numpy(store.flat("frames"))


@settings(max_examples=15)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=5), st.integers(2, 26), st.booleans())
def test_a_window_is_a_piece_of_one_episode(lengths: list[int], length: int, cache: bool) -> None:
    lengths = [*lengths, 25]  # at least one is long enough
    store = new_store(lengths)
    windows = WindowDataset(store, length, size=10, frames=cached(store) if cache else None)
    for i in range(len(windows)):
        which, start = windows.locate(i)
        assert 0 <= start <= lengths[which] + 1 - length
        episode, window = make_episode(lengths[which], which), windows[i]
        np.testing.assert_array_equal(window["frames"], episode.frames[start : start + length])
        for name in ("actions", "rewards", "terminated"):
            np.testing.assert_array_equal(window[name], getattr(episode, name)[start : start + length - 1])
        assert [value.dtype for value in window.values()] == [torch.uint8, torch.int64, torch.float32, torch.bool]


@settings(max_examples=15)
@given(st.integers(1, 40), st.booleans())
def test_a_window_brings_its_past_and_an_episode_begins_with_its_first_frame_held(past: int, cache: bool) -> None:
    store = new_store([25, 9])
    windows = WindowDataset(store, 6, size=12, past=past, frames=cached(store) if cache else None)
    alone = WindowDataset(store, 6, size=12)
    for i in range(len(windows)):
        which, start = windows.locate(i)
        assert (which, start) == alone.locate(i)
        episode, window = make_episode([25, 9][which], which), windows[i]
        time = np.arange(start - past, start + 6)
        np.testing.assert_array_equal(window["frames"], episode.frames[time.clip(0)])
        known = np.where(time[:-1] < 0, store.n_actions, episode.actions[time[:-1].clip(0)])
        np.testing.assert_array_equal(window["actions"], known)
        for name in ("rewards", "terminated"):
            assert torch.equal(window[name], alone[i][name])


def test_every_window_is_as_likely_as_any_other() -> None:
    windows = WindowDataset(new_store([3, 12, 5, 40]), 6, size=8000)
    counts: dict[tuple[int, int], int] = {}
    for i in range(len(windows)):
        counts[windows.locate(i)] = counts.get(windows.locate(i), 0) + 1
    assert set(counts) == {(e, t) for e, steps in enumerate([3, 12, 5, 40]) for t in range(steps + 2 - 6)}
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_a_window_depends_on_its_seed_and_its_number_alone() -> None:
    store = new_store([30, 50])
    windows = WindowDataset(store, 4, size=50, seed=7)
    order = [windows.locate(i) for i in range(50)]
    other_size = WindowDataset(store, 4, size=1000, seed=7)
    assert [other_size.locate(i) for i in reversed(range(50))] == order[::-1]
    other_seed = WindowDataset(store, 4, size=50, seed=8)
    assert [other_seed.locate(i) for i in range(50)] != order


def test_windows_of_codes_are_those_of_the_frames() -> None:
    store = new_store([30, 50])
    numbers = torch.arange(82)[:, None]  # one row a frame of the store
    numbered, windows = WindowDataset(store, 5, size=9, frames=numbers), WindowDataset(store, 5, size=9)
    for i in range(9):
        assert torch.equal(cached(store)[numbered[i]["frames"][:, 0]], windows[i]["frames"])


@pytest.mark.parametrize(("start_method", "cache"), [("fork", False), ("fork", True), ("spawn", False)])
def test_workers_give_the_same_windows(tmp_path: Path, start_method: str, cache: bool) -> None:
    store = make_store(tmp_path / "store", [30, 50])
    windows = WindowDataset(store, 5, size=12, frames=cached(store) if cache else None)
    here = torch.stack([windows[i]["frames"] for i in range(12)])
    loader = DataLoader(windows, batch_size=4, num_workers=2, multiprocessing_context=start_method)
    assert torch.equal(torch.cat([batch["frames"] for batch in loader]), here)


def test_only_so_many_windows_exist() -> None:
    windows = WindowDataset(new_store([10]), 5, size=3)
    assert len(windows) == 3
    for i in (3, -1):
        with pytest.raises(IndexError):
            windows[i]


def test_no_window_can_be_drawn_is_said_at_once() -> None:
    with pytest.raises(UserError, match="is empty"):
        WindowDataset(new_store([]), 5, size=3)
    with pytest.raises(UserError, match="the longest episode has 10 frames, the window needs 11"):
        WindowDataset(new_store([4, 9]), 11, size=3)
    with pytest.raises(UserError, match="2 frames at least"):
        WindowDataset(new_store([4, 9]), 1, size=3)

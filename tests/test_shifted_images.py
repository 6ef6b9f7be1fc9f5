"""A store may be imported with copies of each of its episodes whose frames lie some pixels off."""

from pathlib import Path

import numpy as np
import pytest

from tests.made_episodes import assert_same, make_episode, make_store
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.importers import SHIFT, SHIFTS, import_episodes, open_source


def test_each_episode_is_followed_by_copies_that_lie_a_little_off(tmp_path: Path) -> None:
    address = f"shifted:{tmp_path / 'original'}"
    original = make_store(tmp_path / "original", [12, 5, 7, 9])
    shifted = import_episodes(open_source(address), str(tmp_path / "shifted"))
    assert len(shifted) == 4 * (1 + SHIFTS)
    found = set()
    for i, episode in enumerate(original):
        shifts = set()
        assert_same(shifted[i * (1 + SHIFTS)], episode)
        for k in range(1, 1 + SHIFTS):
            copy = shifted[i * (1 + SHIFTS) + k]
            np.testing.assert_array_equal(copy.actions, episode.actions)
            np.testing.assert_array_equal(copy.rewards, episode.rewards)
            assert copy.seed is None
            shifts.add(where(copy.frames, episode.frames))
        assert len(shifts) == SHIFTS and (0, 0) not in shifts
        found |= shifts
    assert len(found) > 4
    original.append(make_episode(12, 7))
    import_episodes(open_source(address), str(tmp_path / "shifted"))  # goes on
    assert_same(EpisodeStore.open(str(tmp_path / "shifted"))[4 * (1 + SHIFTS)], original[4])


def where(copy: np.ndarray, frames: np.ndarray) -> tuple[int, int]:
    """By how much all frames of the copy are moved: each pixel is the one so far off, or the nearest at the edge."""
    height, width = frames.shape[1:3]
    for y in range(-SHIFT, SHIFT + 1):
        for x in range(-SHIFT, SHIFT + 1):
            rows, columns = np.arange(height) + y, np.arange(width) + x
            if (copy == frames[:, rows.clip(0, height - 1)][:, :, columns.clip(0, width - 1)]).all():
                return y, x
    raise AssertionError("it is no copy")


def test_of_no_episodes_there_are_no_images(tmp_path: Path) -> None:
    make_store(tmp_path / "empty", [])
    with pytest.raises(UserError, match="is empty"):
        open_source(f"shifted:{tmp_path / 'empty'}")

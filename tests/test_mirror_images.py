"""A store may be imported with the mirror image of each of its episodes."""

from pathlib import Path

import numpy as np
import pytest
from made_episodes import PROVENANCE, assert_same, make_episode, make_store

from worldmodel.episodes import EpisodeStore, Provenance
from worldmodel.errors import UserError
from worldmodel.importers import import_episodes, open_source

STEPS = 12


def test_each_episode_is_followed_by_its_mirror_image(tmp_path: Path) -> None:
    original = make_store(tmp_path / "original", [STEPS, STEPS + 3])  # whose actions are left, right and stay
    mirrored = import_episodes(open_source(f"mirrored:{tmp_path / 'original'}"), str(tmp_path / "mirrored"))
    assert len(mirrored) == 4
    for i, episode in enumerate(original):
        image = mirrored[2 * i + 1]
        assert_same(mirrored[2 * i], episode)
        np.testing.assert_array_equal(image.frames, np.flip(episode.frames, 2))
        np.testing.assert_array_equal(image.actions, np.array([1, 0, 2])[episode.actions])
        np.testing.assert_array_equal(image.rewards, episode.rewards)
        assert image.seed is None  # the world does not make it from any
    original.append(make_episode(STEPS, 7))
    import_episodes(open_source(f"mirrored:{tmp_path / 'original'}"), str(tmp_path / "mirrored"))
    assert_same(EpisodeStore.open(str(tmp_path / "mirrored"))[4], original[2])


def test_two_recordings_of_one_name_are_told_apart_in_the_mirror(tmp_path: Path) -> None:
    for place in ("here", "there"):
        make_store(tmp_path / place / "walks", [STEPS])
    import_episodes(open_source(f"mirrored:{tmp_path / 'here' / 'walks'}"), str(tmp_path / "mirrored"))
    with pytest.raises(UserError, match="not of mirrored:there/walks"):
        import_episodes(open_source(f"mirrored:{tmp_path / 'there' / 'walks'}"), str(tmp_path / "mirrored"))


@pytest.mark.parametrize(
    ("meanings", "images"),
    [
        (["NOOP", "LEFT", "RIGHT"], [0, 2, 1]),
        (["turn_left", "turn_right", "bright"], [1, 0, 2]),
        (["turnLeft", "brightness", "turnRight"], [2, 1, 0]),
        (["UPLEFTFIRE", "UP", "UPRIGHTFIRE"], [2, 1, 0]),
        (["Look Left + Strafe Right", "jump", "Look Right + Strafe Left"], [2, 1, 0]),
    ],
)
def test_actions_are_mirrored_however_they_are_spelled(tmp_path: Path, meanings: list[str], images: list[int]) -> None:
    about: Provenance = {**PROVENANCE, "action_meanings": meanings}
    store = EpisodeStore.create(str(tmp_path / "store"), frame_shape=(6, 8, 3), n_actions=3, provenance=about)
    episode = make_episode(STEPS)
    store.append(episode)
    image = open_source(f"mirrored:{tmp_path / 'store'}").read(1)
    np.testing.assert_array_equal(image.actions, np.array(images)[episode.actions])


@pytest.mark.parametrize(
    ("meanings", "sentence"),
    [
        (["forward", "look left", "leftmost"], "has no action look right, as its mirror images would need"),
        (["LEFT", "RIGHT", "BRIGHT"], "has no action BLEFT"),
        (["0", "1", "2"], "No action of .* says left or right"),
    ],
)
def test_actions_without_an_opposite_have_no_mirror_image(tmp_path: Path, meanings: list[str], sentence: str) -> None:
    about: Provenance = {**PROVENANCE, "action_meanings": meanings}
    store = EpisodeStore.create(str(tmp_path / "turns"), frame_shape=(6, 8, 3), n_actions=3, provenance=about)
    with pytest.raises(UserError, match="is empty"):
        open_source(f"mirrored:{tmp_path / 'turns'}")
    store.append(make_episode(STEPS))
    with pytest.raises(UserError, match=sentence):
        open_source(f"mirrored:{tmp_path / 'turns'}")

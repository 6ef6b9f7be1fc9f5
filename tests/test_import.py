"""Episodes recorded elsewhere arrive as they are, once each."""

import json
import os
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_episodes import PROVENANCE, assert_same, make_episode
from PIL import Image

from worldmodel.episodes import Episode, EpisodeStore
from worldmodel.errors import UserError
from worldmodel.importers import import_episodes, open_source

STEPS = 12
FRAME_SHAPE = (16, 24, 3)


def write_film(path: Path, frames: np.ndarray) -> None:
    """A lossless film."""
    with av.open(path, "w") as film:
        stream = film.add_stream("libx264rgb", rate=Fraction(15), options={"qp": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three episodes as a folder of films; the second one was cut off by a time limit."""
    folder = tmp_path / "some_level" / "train"
    folder.mkdir(parents=True)
    episodes = [make_episode(STEPS, seed, FRAME_SHAPE) for seed in range(3)]
    for i, episode in enumerate(episodes):
        write_film(folder / f"episode_{i:05}.mp4", episode.frames)
    np.savez(
        folder / "steps.npz",
        actions=np.stack([episode.actions for episode in episodes]).astype(np.uint8),
        rewards=np.stack([episode.rewards for episode in episodes]),
        ended=np.array([False, True, False]),
        seed=np.array([100, 101, 102]),
    )
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three episodes as a folder of folders of pictures."""
    folder = tmp_path / "recorded" / "pictures"
    for seed in range(3):
        episode = make_episode(STEPS + seed, seed, FRAME_SHAPE)
        place = folder / f"walk{seed}"
        place.mkdir(parents=True)
        for t, frame in enumerate(episode.frames):
            Image.fromarray(frame).save(place / f"{t:04}.png")
        steps = {name: getattr(episode, name) for name in ("actions", "rewards", "terminated", "truncated")}
        np.savez(place / "steps.npz", **steps, **({} if episode.seed is None else {"seed": np.array(episode.seed)}))
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    return folder


def film_episode(i: int) -> Episode:
    episode = make_episode(STEPS, i, FRAME_SHAPE)
    none = np.zeros(STEPS, np.bool_)
    ended = none.copy()
    ended[-1] = i == 1
    return Episode(episode.frames, episode.actions, episode.rewards, none, ended, seed=100 + i)


def test_films_arrive_exactly(films: Path, tmp_path: Path) -> None:
    store = import_episodes(open_source(str(films)), str(tmp_path / "store"))
    assert len(store) == 3
    for i, episode in enumerate(store):
        assert_same(episode, film_episode(i))
    assert store.provenance["env_id"] == "worldmodel/DMLab-v0"
    assert store.provenance["env_kwargs"] == {"level": "some_level"}
    assert store.n_actions == 9


def test_films_of_another_world_say_so(films: Path, tmp_path: Path) -> None:
    (films / "provenance.json").write_text(json.dumps(PROVENANCE))
    store = import_episodes(open_source(str(films)), str(tmp_path / "store"))
    assert store.provenance.items() >= {**PROVENANCE, "source": "some_level/train"}.items()


def test_pictures_arrive_exactly(pictures: Path, tmp_path: Path) -> None:
    store = import_episodes(open_source(str(pictures)), str(tmp_path / "store"))
    assert len(store) == 3
    for seed, episode in enumerate(store):
        assert_same(episode, make_episode(STEPS + seed, seed, FRAME_SHAPE))


def test_pictures_may_come_with_actions_alone(pictures: Path, tmp_path: Path) -> None:
    expected = make_episode(STEPS, 0, FRAME_SHAPE)
    np.savez(pictures / "walk0" / "steps.npz", actions=expected.actions)
    episode = import_episodes(open_source(str(pictures)), str(tmp_path / "store"))[0]
    np.testing.assert_array_equal(episode.actions, expected.actions)
    assert not episode.rewards.any() and not episode.terminated.any() and episode.seed is None


def test_pictures_are_in_the_order_in_which_people_count(pictures: Path, tmp_path: Path) -> None:
    for t in range(STEPS + 1):
        (pictures / "walk0" / f"{t:04}.png").rename(pictures / "walk0" / f"frame {t}.png")
    (pictures / "walk2").rename(pictures / "walk10")
    (pictures / "walk1").rename(pictures / "walk9")
    store = import_episodes(open_source(str(pictures)), str(tmp_path / "store"))
    for seed, episode in enumerate(store):
        assert_same(episode, make_episode(STEPS + seed, seed, FRAME_SHAPE))


def test_an_interrupted_import_goes_on_where_it_was(pictures: Path, tmp_path: Path) -> None:
    def interrupted(left: range) -> Iterator[int]:
        yield left[0]
        raise KeyboardInterrupt

    address = str(tmp_path / "store")
    for stored in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            import_episodes(open_source(str(pictures)), address, progress=interrupted)
        assert len(EpisodeStore.open(address)) == stored
    for _ in range(2):  # the second time there is nothing left to do
        import_episodes(open_source(str(pictures)), address)
        assert EpisodeStore.open(address).lengths.tolist() == [STEPS, STEPS + 1, STEPS + 2]


def test_two_recordings_do_not_mix(pictures: Path, films: Path, tmp_path: Path) -> None:
    import_episodes(open_source(str(pictures)), str(tmp_path / "store"))
    with pytest.raises(UserError, match="not of some_level/train"):
        import_episodes(open_source(str(films)), str(tmp_path / "store"))


def test_two_recordings_of_one_name_do_not_mix(pictures: Path, tmp_path: Path) -> None:
    import_episodes(open_source(str(pictures)), str(tmp_path / "store"))
    other = tmp_path / "elsewhere" / "recorded" / "pictures"
    shutil.copytree(pictures, other)
    (other / "walk0").rename(other / "walk9")
    with pytest.raises(UserError, match="of the same name"):
        import_episodes(open_source(str(other)), str(tmp_path / "store"))
    assert len(EpisodeStore.open(str(tmp_path / "store"))) == 3


def test_what_comes_between_episodes_that_were_imported_is_not_mixed_up_with_them(
    pictures: Path, tmp_path: Path
) -> None:
    (pictures / "walk1").rename(tmp_path / "later")
    import_episodes(open_source(str(pictures)), str(tmp_path / "store"))
    (tmp_path / "later").rename(pictures / "walk1")
    with pytest.raises(UserError, match="Episode 1 of .* what this one was"):
        import_episodes(open_source(str(pictures)), str(tmp_path / "store"))
    assert len(EpisodeStore.open(str(tmp_path / "store"))) == 2


def test_an_episode_that_does_not_fit_is_named(pictures: Path, tmp_path: Path) -> None:
    for picture in (pictures / "walk1").glob("*.png"):
        Image.open(picture).resize((8, 8)).save(picture)
    with pytest.raises(UserError, match="Episode 1 of recorded/pictures: .* not \\(8, 8, 3\\)"):
        import_episodes(open_source(str(pictures)), str(tmp_path / "store"))


def break_film(folder: Path) -> None:
    film = folder / "episode_00000.mp4"
    film.write_bytes(film.read_bytes()[:200])


def drop_film(folder: Path) -> None:
    (folder / "episode_00000.mp4").unlink()


def drop_steps(folder: Path) -> None:
    (folder / "steps.npz").unlink()


def break_steps(folder: Path) -> None:
    (folder / "steps.npz").write_bytes((folder / "steps.npz").read_bytes()[:100])


def drop_rewards(folder: Path) -> None:
    arrays = dict(np.load(folder / "steps.npz"))
    del arrays["rewards"]
    np.savez(folder / "steps.npz", **arrays)


def one_seed_for_all(folder: Path) -> None:
    np.savez(folder / "steps.npz", **{**np.load(folder / "steps.npz"), "seed": np.array(3)})


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (break_film, "not a film that can be read"),
        (drop_film, "2 films, but its steps.npz has actions of another number"),
        (one_seed_for_all, "3 films, but its steps.npz has seed of another number"),
        (drop_steps, "There is no .*steps.npz"),
        (break_steps, "steps.npz cannot be read"),
        (drop_rewards, "has no rewards"),
    ],
)
def test_broken_films_make_no_store(films: Path, tmp_path: Path, harm, sentence: str) -> None:  # type: ignore[no-untyped-def]
    harm(films)
    with pytest.raises(UserError, match=sentence):
        import_episodes(open_source(str(films)), str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def grey_picture(folder: Path) -> None:
    Image.new("L", (24, 16)).save(folder / "walk0" / "0003.png")


def small_picture(folder: Path) -> None:
    Image.new("RGB", (12, 16)).save(folder / "walk0" / "0003.png")


def broken_picture(folder: Path) -> None:
    (folder / "walk0" / "0003.png").write_bytes(b"no picture")


def drop_picture(folder: Path) -> None:
    (folder / "walk0" / "0003.png").unlink()


def drop_provenance(folder: Path) -> None:
    (folder / "provenance.json").unlink()


def poor_provenance(folder: Path) -> None:
    (folder / "provenance.json").write_text('{"env_id": "made/Up-v0"}')


def wrong_provenance(folder: Path) -> None:
    (folder / "provenance.json").write_text(json.dumps({**PROVENANCE, "fps": "fast"}))


def endless_provenance(folder: Path) -> None:
    (folder / "provenance.json").write_text(json.dumps({**PROVENANCE, "fps": float("nan")}))


def odd_settings(folder: Path) -> None:
    (folder / "provenance.json").write_text(json.dumps({**PROVENANCE, "env_kwargs": 5}))


def no_actions(folder: Path) -> None:
    (folder / "provenance.json").write_text(json.dumps({**PROVENANCE, "action_meanings": []}))


def two_of_a_name(folder: Path) -> None:
    (folder / "provenance.json").write_text(json.dumps({**PROVENANCE, "action_meanings": ["go", "stop", "go"]}))


def seed_in_words(folder: Path) -> None:
    np.savez(folder / "walk0" / "steps.npz", actions=np.zeros(STEPS, np.int64), seed=np.array("seven"))


def huge_seed(folder: Path) -> None:
    np.savez(folder / "walk0" / "steps.npz", actions=np.zeros(STEPS, np.int64), seed=np.array([2**63], np.uint64))


def another_file(folder: Path) -> None:
    with (folder / "walk0" / "steps.npz").open("wb") as file:
        np.save(file, np.zeros(STEPS))


def list_for_provenance(folder: Path) -> None:
    (folder / "provenance.json").write_text("[]")


def drop_all_pictures(folder: Path) -> None:
    for path in (folder / "walk0").glob("*.png"):
        path.unlink()


def unknown_action(folder: Path) -> None:
    np.savez(folder / "walk0" / "steps.npz", actions=np.full(STEPS, len(PROVENANCE["action_meanings"])))


def forget_steps(folder: Path) -> None:
    shutil.copytree(folder / "walk0", folder / "walk00")
    (folder / "walk00" / "steps.npz").unlink()


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (forget_steps, "walk00 has pictures and no steps.npz"),
        (grey_picture, "not that of the first frame"),
        (small_picture, "not that of the first frame"),
        (broken_picture, "not a picture that can be read"),
        (drop_picture, "12 frames has 11 actions"),
        (drop_provenance, "has no provenance.json"),
        (poor_provenance, "does not say action_meanings, fps, frame_skip"),
        (wrong_provenance, "frame_skip and fps as numbers"),
        (endless_provenance, "frame_skip and fps as numbers"),
        (odd_settings, "env_kwargs, if any, as an object"),
        (no_actions, "action_meanings as a list of texts"),
        (two_of_a_name, "calls more than one action go"),
        (list_for_provenance, "not a JSON object"),
        (drop_all_pictures, "has no pictures"),
        (unknown_action, "Episode 0 of .*: Actions must be in"),
        (seed_in_words, "one seed if any, a whole number"),
        (huge_seed, "seed is a whole number from 0 to"),
        (another_file, "cannot be read"),
    ],
)
def test_broken_pictures_make_no_store(pictures: Path, tmp_path: Path, harm, sentence: str) -> None:  # type: ignore[no-untyped-def]
    harm(pictures)
    with pytest.raises(UserError, match=sentence):
        import_episodes(open_source(str(pictures)), str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_nothing_to_import_is_said(tmp_path: Path) -> None:
    for source, sentence in ((tmp_path / "absent", "no folder"), (tmp_path, "neither films")):
        with pytest.raises(UserError, match=sentence):
            open_source(str(source))


@pytest.mark.skipif("WORLDMODEL_DATA" not in os.environ, reason="needs WORLDMODEL_DATA")
def test_real_episodes_of_deepmind_lab_arrive(tmp_path: Path) -> None:
    source = open_source(os.path.join(os.environ["WORLDMODEL_DATA"], "dmlab", "seekavoid_arena_01", "test"))
    source.episodes = 2
    store = import_episodes(source, str(tmp_path / "store"))
    assert (store.frame_shape, store.n_actions, store.lengths.tolist()) == ((84, 84, 3), 9, [300, 300])
    assert store.provenance["env_kwargs"] == {"level": "seekavoid_arena_01"}
    for episode in store:
        assert episode.truncated[-1] and not episode.terminated.any()
        np.testing.assert_array_equal(episode.frames[-1], episode.frames[-2])  # the engine has no last observation
        assert (episode.frames[100] != episode.frames[101]).any()

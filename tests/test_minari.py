"""Episodes go to Minari and come back as they are; what cannot go there leaves nothing."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from made_episodes import assert_same, make_episode, make_store

from envs.exporters import export_minari
from worldmodel.errors import UserError
from worldmodel.importers import import_episodes, open_source


@pytest.fixture
def minari_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("minari", reason="needs the extra [minari]")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def test_a_store_survives_the_way_to_minari_and_back(minari_folder: Path, tmp_path: Path) -> None:
    lengths = [5, 9, 1]
    store = make_store(tmp_path / "store", lengths)
    export_minari(store, "made/up-v0")
    back = import_episodes(open_source("minari:made/up-v0"), str(tmp_path / "back"))
    assert back.lengths.tolist() == lengths
    for one, other in zip(store, back, strict=True):
        assert_same(one, other)
    assert back.provenance == {**store.provenance, "source": "minari:made/up-v0"}


def test_a_minari_dataset_of_others_arrives(minari_folder: Path, tmp_path: Path) -> None:
    """Its actions may begin at another number than 0, and it does not say what they mean."""
    import minari
    from gymnasium import spaces

    episode = make_episode(7, seed=1)
    buffer = minari.data_collector.EpisodeBuffer(
        id=0,
        observations=episode.frames,
        actions=episode.actions + 4,
        rewards=episode.rewards,
        terminations=episode.terminated,
        truncations=episode.truncated,
    )
    minari.create_dataset_from_buffers(
        "others-v0",
        [buffer],
        observation_space=spaces.Box(0, 255, episode.frames.shape[1:], np.uint8),
        action_space=spaces.Discrete(3, start=4),
        jpeg_encoding=False,
    )
    store = import_episodes(open_source("minari:others-v0"), str(tmp_path / "store"))
    np.testing.assert_array_equal(store[0].frames, episode.frames)
    np.testing.assert_array_equal(store[0].actions, episode.actions)
    assert store.provenance["action_meanings"] == ["4", "5", "6"]


def test_an_export_that_fails_leaves_no_dataset(minari_folder: Path, tmp_path: Path) -> None:
    def interrupted(episodes: range) -> Iterator[int]:
        yield episodes[0]
        raise KeyboardInterrupt

    store = make_store(tmp_path / "store", [5, 9])
    with pytest.raises(KeyboardInterrupt):
        export_minari(store, "made/up-v0", progress=interrupted)
    export_minari(store, "made/up-v0")  # the name is free
    with pytest.raises(UserError, match="already"):
        export_minari(store, "made/up-v0")
    with pytest.raises(UserError, match="nothing to export"):
        export_minari(make_store(tmp_path / "empty", []), "made/empty-v0")


def test_a_name_that_minari_would_not_find_again_is_refused_and_leaves_nothing(
    minari_folder: Path, tmp_path: Path
) -> None:
    import minari

    store = make_store(tmp_path / "store", [5])
    for name in ("no name!", "m/up-v0", "made/up", "data/up-v0", "made/data/up-v0", "made//up/up-v0", "../up-v0"):
        with pytest.raises(UserError, match="is no name for a Minari dataset"):
            export_minari(store, name)
    assert not minari_folder.exists()
    export_minari(store, "made/up-v0")
    with pytest.raises(UserError, match="made/up-v0 is a Minari dataset, in which there can be no other"):
        export_minari(store, "made/up-v0/deeper-v0")
    assert list(minari.list_local_datasets()) == ["made/up-v0"]


def test_an_export_does_not_mind_what_is_broken_in_minaris_folder(minari_folder: Path, tmp_path: Path) -> None:
    (minari_folder / "no name!" / "data").mkdir(parents=True)
    (minari_folder / "unversioned" / "data").mkdir(parents=True)
    store = make_store(tmp_path / "store", [5])
    export_minari(store, "made/up-v0")
    assert_same(open_source("minari:made/up-v0").read(0), store[0])


def test_an_export_to_a_full_disk_leaves_nothing(minari_folder: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [5, 9])
    full = mock.Mock(side_effect=[mock.Mock(free=2**30), mock.Mock(free=2**10)])
    with mock.patch("shutil.disk_usage", full), pytest.raises(OSError, match="No space left"):
        export_minari(store, "made/up-v0")
    assert not [path for path in minari_folder.rglob("*") if path.is_file()]
    export_minari(store, "made/up-v0")


def test_an_interrupt_is_not_lost_in_h5py_and_leaves_nothing(minari_folder: Path, tmp_path: Path) -> None:
    def interrupting(episodes: range) -> Iterator[int]:
        with contextlib.suppress(KeyboardInterrupt):  # as h5py does, where it cannot raise
            signal.raise_signal(signal.SIGINT)
        yield from episodes

    with pytest.raises(KeyboardInterrupt):
        export_minari(make_store(tmp_path / "store", [5, 9]), "made/up-v0", progress=interrupting)
    assert not [path for path in minari_folder.rglob("*") if path.is_file()]


def test_an_absent_minari_dataset_is_said(minari_folder: Path) -> None:
    with pytest.raises(UserError, match="no Minari dataset absent-v0"):
        open_source("minari:absent-v0")


def test_actions_that_are_not_discrete_are_refused(minari_folder: Path) -> None:
    import minari
    from gymnasium import spaces

    episode = make_episode(7, seed=1)
    several = np.zeros((7, 3), np.int8)
    buffer = minari.data_collector.EpisodeBuffer(
        id=0,
        observations=episode.frames,
        actions=several,
        rewards=episode.rewards,
        terminations=episode.terminated,
        truncations=episode.truncated,
    )
    shown = spaces.Box(0, 255, episode.frames.shape[1:], np.uint8)
    minari.create_dataset_from_buffers(
        "several-v0", [buffer], observation_space=shown, action_space=spaces.MultiBinary(3), jpeg_encoding=False
    )
    with pytest.raises(UserError, match="discrete"):
        open_source("minari:several-v0")

"""What is appended to a store is what is read from it; what cannot be is one sentence and changes nothing."""

import errno
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import FRAME_SHAPE, N_ACTIONS, PROVENANCE, assert_same, make_episode, make_store

from worldmodel.episodes import SHARD_FRAMES, STEP_FIELDS, EpisodeStore
from worldmodel.errors import UserError


def new_address() -> str:
    return f"memory://{uuid.uuid4()}"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), reopen=st.booleans())
def test_episodes_come_back_as_they_were_appended(lengths: list[int], reopen: bool) -> None:
    address = new_address()
    store = make_store(address, [])
    for seed, steps in enumerate(lengths):
        if reopen:
            store = EpisodeStore.open(address, append=True)
        store.append(make_episode(steps, seed))
    for view in (store, EpisodeStore.open(address)):
        assert view.lengths.tolist() == lengths
        for seed, episode in enumerate(view):
            assert_same(episode, make_episode(lengths[seed], seed))
        assert_same(view[-1], make_episode(lengths[-1], len(lengths) - 1))
        with pytest.raises(IndexError):
            view[len(lengths)]


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_an_episode_may_be_longer_than_a_file_of_frames(tmp_path: Path, prefix: str) -> None:
    address = f"{prefix}{tmp_path}/store"
    lengths = [7, SHARD_FRAMES + 100, 20]
    make_store(address, lengths)
    for seed, episode in enumerate(EpisodeStore.open(address)):
        assert_same(episode, make_episode(lengths[seed], seed))
    assert len(files(tmp_path / "store" / "frames")) == 3  # its description and two files of frames


@given(start=st.integers(-60, 60), stop=st.none() | st.integers(-60, 60))
def test_a_part_of_the_frames_is_that_part(part_store: EpisodeStore, start: int, stop: int | None) -> None:
    expected = make_episode(50, 1).frames[start:stop]
    np.testing.assert_array_equal(part_store.frames(1, start, stop), expected)


@pytest.fixture(scope="module")
def part_store() -> EpisodeStore:
    return make_store(new_address(), [20, 50, 30])


def test_flat_fields_are_the_episodes_one_after_the_other() -> None:
    store = make_store(new_address(), [5, 9])
    for name in ("frames", *STEP_FIELDS):
        expected = np.concatenate([getattr(make_episode(steps, seed), name) for seed, steps in enumerate([5, 9])])
        np.testing.assert_array_equal(store.flat(name), expected)
    assert make_store(new_address(), []).flat("frames").shape == (0, *FRAME_SHAPE)


def test_a_store_knows_where_it_comes_from(tmp_path: Path) -> None:
    make_store(tmp_path / "store", [])
    store = EpisodeStore.open(str(tmp_path / "store"))
    assert (store.frame_shape, store.n_actions, len(store)) == (FRAME_SHAPE, N_ACTIONS, 0)
    assert store.provenance.items() >= PROVENANCE.items()
    assert store.provenance["version"]


def test_plain_zarr_reads_it(tmp_path: Path) -> None:
    make_store(tmp_path / "store", [5, 9])
    offsets = zarr.open_array(tmp_path / "store" / "offsets", mode="r")
    frames = zarr.open_array(tmp_path / "store" / "frames", mode="r")
    np.testing.assert_array_equal(offsets[:], [0, 5, 14])
    np.testing.assert_array_equal(frames[6:16], make_episode(9, 1).frames)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": np.zeros((11, 6, 8, 3), np.float32)}, "uint8 RGB"),
        ({"frames": np.zeros((11, 6, 8, 1), np.uint8)}, "uint8 RGB"),
        ({"frames": np.zeros((11, 6, 8), np.uint8)}, "uint8 RGB"),
        ({"frames": np.zeros((1, 6, 8, 3), np.uint8)}, "two frames"),
        ({"frames": np.zeros((10, 6, 8, 3), np.uint8)}, "10 frames has 9 actions"),
        ({"actions": np.zeros(10, np.float64)}, "actions of an episode must be int64"),
        ({"actions": np.full(10, 2**64 - 1, np.uint64)}, "up to 18446744073709551615, are too large"),
        ({"rewards": np.full(10, 1e300)}, "finite numbers"),
        ({"rewards": np.zeros(9)}, "11 frames has 10 rewards"),
        ({"terminated": np.ones(10, np.bool_)}, "last step only"),
        ({"seed": -3}, "seed"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_an_impossible_episode_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(make_episode(10), **change)


@pytest.mark.parametrize(
    ("episode", "sentence"),
    [
        (make_episode(10, frame_shape=(6, 9, 3)), r"frames of shape \(6, 8, 3\), not \(6, 9, 3\)"),
        (replace(make_episode(10), actions=np.full(10, N_ACTIONS)), r"Actions must be in \[0, 3\)"),
        (replace(make_episode(10), actions=np.full(10, -1)), r"Actions must be in \[0, 3\)"),
    ],
)
def test_an_episode_that_does_not_fit_changes_nothing(tmp_path: Path, episode: Any, sentence: str) -> None:
    store = make_store(tmp_path / "store", [5])
    before = {path: path.read_bytes() for path in files(tmp_path)}
    with pytest.raises(UserError, match=sentence):
        store.append(episode)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


def test_a_store_is_made_only_where_nothing_is(tmp_path: Path) -> None:
    make_store(tmp_path / "store", [5])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    (tmp_path / "file").touch()
    for name in ("store", "photos", "file"):
        with pytest.raises(UserError, match="already"):
            make_store(tmp_path / name, [])
    assert len(EpisodeStore.open(str(tmp_path / "store"))) == 1


def test_a_description_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(UserError, match="4 action meanings, not 3"):
        EpisodeStore.create(new_address(), frame_shape=FRAME_SHAPE, n_actions=4, provenance=PROVENANCE)
    with pytest.raises(UserError, match="more than one action go"):
        same = {**PROVENANCE, "action_meanings": ["go", "go"]}
        EpisodeStore.create(new_address(), frame_shape=FRAME_SHAPE, n_actions=2, provenance=same)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="RGB"):
        EpisodeStore.create(new_address(), frame_shape=(8, 8, 1), n_actions=3, provenance=PROVENANCE)
    with pytest.raises(UserError, match="RGB"):
        EpisodeStore.create(new_address(), frame_shape=(0, 8, 3), n_actions=3, provenance=PROVENANCE)


def test_what_is_not_a_store_is_said_to_be_none(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not an episode store"):
        EpisodeStore.open(str(tmp_path / "other"))
    for address in (f"{tmp_path}/absent", f"{tmp_path}/empty", new_address()):
        with pytest.raises(UserError, match="no episode store"):
            EpisodeStore.open(address)
    with pytest.raises(UserError, match="Protocol not known"):
        EpisodeStore.open("nosuch://store")


def test_a_store_open_for_reading_takes_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "store", [5])
    with pytest.raises(UserError, match="reading only"):
        EpisodeStore.open(str(tmp_path / "store")).append(make_episode(5))


def test_black_frames_and_zeros_are_kept_like_others(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [])
    nothing = np.zeros(20)
    black = replace(
        make_episode(20),
        frames=np.zeros((21, *FRAME_SHAPE), np.uint8),
        actions=nothing.astype(int),
        rewards=nothing,
        terminated=nothing > 0,
        truncated=nothing > 0,
    )
    store.append(black)
    assert_same(EpisodeStore.open(str(tmp_path / "store"))[0], black)


@pytest.mark.parametrize("harm", ["cut short", "lost", "one bit wrong"])
def test_damage_to_any_file_is_noticed(tmp_path: Path, harm: str) -> None:
    lengths = [30, 40]
    make_store(tmp_path / "whole", lengths)
    noticed = 0
    for path in files(tmp_path / "whole"):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "store")
        victim = tmp_path / "store" / path.relative_to(tmp_path / "whole")
        content = bytearray(victim.read_bytes())
        if harm == "lost":
            victim.unlink()
        elif harm == "cut short":
            victim.write_bytes(content[: len(content) // 2])
        elif victim.name == "zarr.json":
            continue  # a changed digit in plain text may be another store's truth
        else:
            content[len(content) // 2] ^= 1
            victim.write_bytes(content)
        with pytest.raises(UserError):
            for episode in EpisodeStore.open(str(tmp_path / "store")):
                assert len(episode)
        noticed += 1
    assert noticed >= 7


def test_a_count_of_episodes_that_are_not_there_is_noticed(tmp_path: Path) -> None:
    make_store(tmp_path / "store", [4])
    path = tmp_path / "store" / "zarr.json"
    path.write_text(path.read_text().replace('"episodes": 1', '"episodes": 3'))
    with pytest.raises(UserError, match="damaged or unreadable .its offsets are not those of 3 episodes"):
        EpisodeStore.open(str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n_actions": 2}, "does not name 2 actions"),
        ({"frame_shape": [8, 8, 3]}, "its frames are not of shape"),
        ({"provenance": []}, "its provenance is not a JSON object"),
        ({"provenance": {"env_id": "made/Up-v0"}}, "its provenance does not say action_meanings, fps, frame_skip"),
    ],
)
def test_a_description_that_is_not_that_of_the_arrays_is_noticed(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    make_store(tmp_path / "store", [4])
    path = tmp_path / "store" / "zarr.json"
    about = json.loads(path.read_text())
    about["attributes"].update(change)
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match=sentence):
        EpisodeStore.open(str(tmp_path / "store"))


@pytest.mark.parametrize("before", [0, 1])
def test_no_space_left_at_any_point_leaves_the_episodes_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Every file is written beside its place and renamed into it; let each of those renames in turn find no space."""
    address = str(tmp_path / "store")
    store = make_store(address, [30] * before)
    rename = Path.replace
    for spared in count():
        spare = iter(range(spared))

        def rename_while_spared(self: Path, target: Path, spare: Iterator[int] = spare) -> Path:
            if next(spare, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", rename_while_spared)
            try:
                store.append(make_episode(50, seed=before))
                break  # an append needs no more than `spared` files
            except UserError as error:
                assert "no space left" in str(error)
        assert len(store) == len(EpisodeStore.open(address)) == before
    assert spared > 8
    store.append(make_episode(20, seed=before + 1))
    lengths = [30] * before + [50, 20]
    for seed, episode in enumerate(EpisodeStore.open(address)):
        assert_same(episode, make_episode(lengths[seed], seed))


def test_the_description_is_readable_json(tmp_path: Path) -> None:
    make_store(tmp_path / "store", [5])
    attributes = json.loads((tmp_path / "store" / "zarr.json").read_text())["attributes"]
    assert attributes["episodes"] == 1
    assert attributes["provenance"]["env_id"] == "made/Up-v0"


def test_a_writer_that_missed_what_another_wrote_is_refused() -> None:
    address = new_address()
    store = make_store(address, [5])
    late = EpisodeStore.open(address, append=True)
    store.append(make_episode(6, 1))
    with pytest.raises(UserError, match="another process"):
        late.append(make_episode(7, 2))
    store.append(make_episode(8, 3))
    assert EpisodeStore.open(address).lengths.tolist() == [5, 6, 8]


def test_rewards_that_are_no_numbers_are_refused() -> None:
    episode = make_episode(5, 0)
    for value in (np.nan, np.inf):
        with pytest.raises(UserError, match="finite"):
            replace(episode, rewards=np.full(5, value))


def test_a_field_that_there_is_not_is_named(part_store: EpisodeStore) -> None:
    with pytest.raises(UserError, match="but no reward"):
        part_store.flat("reward")

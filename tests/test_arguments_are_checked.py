"""Arguments that make no sense are one sentence and exit code 2, before anything is done or written."""

from pathlib import Path

import numpy as np
import pytest
from made_episodes import PROVENANCE, make_episode
from tiny_world import FRAME_SHAPE, N_ACTIONS, tiny_world

from tests.command_line import refused
from worldmodel.episodes import EpisodeStore

CORRIDOR = "corridor:Corridor-v0"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a store, and files of actions that are none."""
    folder = tmp_path_factory.mktemp("place")
    tiny_world().float().save_pretrained(folder / "maze")
    store = EpisodeStore.create(
        str(folder / "store"), frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE
    )
    store.append(make_episode(40, 0, FRAME_SHAPE))
    for name in ("empty.txt", "empty.npy", "file"):
        (folder / name).touch()
    (folder / "huge.txt").write_text(f"0 {2**70}")
    np.save(folder / "square.npy", np.zeros((2, 2), np.int64))
    np.savez(folder / "several.npz", actions=np.zeros(3, np.int64))
    (folder / "several.npz").rename(folder / "several.npy")
    return folder


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("imagine --model maze --seed -1", "--seed"),
        ("imagine --model maze --temperature 0", "temperature"),
        ("imagine --model maze --figure7 --actions left", "leave out"),
        ("imagine --model maze --figure7", "does not know both"),
        ("imagine --model maze --figure7 --store episodes --given 5", "--given is 6 or more"),
        ("imagine --model maze --seed 4294967296", "--seed is from 0"),
        ("train-audio episodes --preset 64x --settle-steps 1 --out run", "64x hears the wave"),
        ("train-audio episodes --preset 64x --lr nan --out run", "between 0 and 1, not nan"),
        ("imagine --model maze --temperature nan", "temperature"),
        ("imagine --model maze --actions left*", "not an action with a count"),
        ("imagine --model maze --actions left*²", "not an action with a count"),
        ("train store --out new --tokenizer maze --stage tokenizer", "no tokenizer to train"),
        ("train store --out new --prior-lr -1", "Learning rates"),
        (f"train store --out new --seed {2**64}", "seed is from 0 to 4294967295"),
        ("train store --out new --init store", "not a model"),
        ("train store --out new --prior-steps 0", "give it some, or a model to start from"),
        ("train store --out new --dream-steps -1", "of its dreams 0 or more"),
        ("imagine --model maze --actions empty.txt", "has no actions"),
        ("imagine --model maze --actions empty.npy", "not a list of action ids"),
        ("imagine --model maze --actions huge.txt", "not a list of action ids"),
        ("imagine --model maze --actions square.npy", "not a list of action ids"),
        ("imagine --model maze --actions several.npy", "not a list of action ids"),
        ("imagine --model maze --out file", "Cannot read or write file"),
        ("measure --model maze --store store --train-store store --out out --long-dream-steps 5", "10 or more"),
        ("measure --model maze --store store --train-store store --out file", "Cannot read or write file"),
        (f"collect {CORRIDOR} --episodes 1 --store foo://x", "foo"),
        ("collect worldmodel/Doom-v0 --episodes 1 --store new --env-kwargs frame_skip=0", "frame_skip"),
        ("collect worldmodel/DMLab-v0 --episodes 1 --store new --env-kwargs frame_skip=0", "frame_skip"),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(
    command: str,
    sentence: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = files(place)
    monkeypatch.chdir(place)
    error = refused(*command.split())
    assert sentence in error
    assert error.count("\n") == 1
    assert files(place) == before

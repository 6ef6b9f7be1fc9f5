"""DMLab-v0 against the engine where it is installed, and elsewhere against a fake that keeps the engine's rules."""

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_deepmind_lab
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.dmlab import IMPALA_ACTIONS, LevelCache
from worldmodel.errors import UserError

ARENA = "seekavoid_arena_01"
MAZE = "contributed/dmlab30/explore_object_locations_small"
INSTALLED = importlib.util.find_spec("deepmind_lab") is not None


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The engine's module, or the fake in its place."""
    if not INSTALLED:
        monkeypatch.setitem(sys.modules, "deepmind_lab", fake_deepmind_lab)
    yield importlib.import_module("deepmind_lab")


def make(**kwargs: Any) -> gymnasium.Env:
    return gymnasium.make("envs:worldmodel/DMLab-v0", **kwargs)


# --- The engine's rules: what the adapter must respect, and what the fake must enforce as the engine does.


def test_the_engine_shows_and_steps_nothing_while_it_is_not_running(lab: Any) -> None:
    engine = lab.Lab(ARENA, ["RGB_INTERLEAVED"], config={"width": "84", "height": "84"})
    action = np.zeros(7, np.intc)
    for _ in ("before the first reset", "after close"):
        assert not engine.is_running()
        with pytest.raises(RuntimeError):
            engine.observations()
        with pytest.raises(RuntimeError):
            engine.step(action)
        engine.close()


@pytest.mark.parametrize("action", [np.zeros(7, np.int64), np.zeros(6, np.intc), np.zeros((1, 7), np.intc)])
def test_the_engine_takes_only_seven_intc(lab: Any, action: np.ndarray) -> None:
    engine = lab.Lab(ARENA, ["RGB_INTERLEAVED"], config={"width": "84", "height": "84"})
    engine.reset(seed=1)
    with pytest.raises(ValueError):
        engine.step(action)
    engine.close()


def test_the_engine_takes_only_strings_as_settings_and_python_ints_as_seeds(lab: Any) -> None:
    with pytest.raises(TypeError):
        lab.Lab(ARENA, ["RGB_INTERLEAVED"], config={"width": 84, "height": "84"})
    engine = lab.Lab(ARENA, ["RGB_INTERLEAVED"], config={"width": "84", "height": "84"})
    with pytest.raises(ValueError):
        engine.reset(seed=np.int64(1))
    engine.close()


# --- The adapter.


def test_gymnasiums_checker_has_no_complaint(lab: Any) -> None:
    env = make(render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_close_check=INSTALLED)
    env.close()


def test_an_episode_ends_as_a_truncation_and_repeats_its_last_frame(lab: Any) -> None:
    env = make(level=ARENA)
    frame, _ = env.reset(seed=3)
    truncated = False
    while not truncated:
        before = frame
        frame, reward, terminated, truncated, _ = env.step(0)
        assert isinstance(reward, float) and terminated is False
    np.testing.assert_array_equal(frame, before)
    again, _ = env.reset(seed=3)  # and the world goes on
    assert env.observation_space.contains(again)
    env.close()


@pytest.mark.parametrize("level", [ARENA, MAZE])
def test_the_same_seed_is_the_same_episode_whatever_came_before(lab: Any, level: str) -> None:
    def play(env: gymnasium.Env, seed: int) -> np.ndarray:
        return np.stack([env.reset(seed=seed)[0], *(env.step(action)[0] for action in (0, 5, 6, 2))])

    env = make(level=level)
    first, other, again = play(env, 7), play(env, 8), play(env, 7)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    env.close()


def test_any_gymnasium_seed_is_a_level_seed(lab: Any) -> None:
    env = make()
    for seed in (0, 2**31 - 1, 2**31, 2**32 - 1, 2**40):
        assert env.observation_space.contains(env.reset(seed=seed)[0])
    env.close()


def test_size_frame_skip_and_actions_are_the_users(lab: Any) -> None:
    env = make(
        height=36, width=48, frame_skip=2, actions={"spin": (512, 0, 0, 0, 0, 0, 0), "jump": [0, 0, 0, 0, 0, 1, 0]}
    )
    assert env.observation_space.shape == (36, 48, 3)
    assert env.metadata["render_fps"] == 30
    assert env.unwrapped.get_action_meanings() == ["spin", "jump"]
    still, _ = env.reset(seed=1)
    assert still.shape == (36, 48, 3)
    assert (env.step(0)[0] != still).any()
    env.close()


def test_impalas_nine_are_the_default(lab: Any) -> None:
    env = make()
    assert env.action_space.n == 9
    assert env.unwrapped.get_action_meanings() == list(IMPALA_ACTIONS)
    env.close()


def test_a_maze_is_built_once_and_then_fetched(lab: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = make(level=MAZE, level_cache=folder)
    built, _ = first.reset(seed=5)
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert kept
    second = make(level=MAZE, level_cache=folder)
    fetched, _ = second.reset(seed=5)
    np.testing.assert_array_equal(built, fetched)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == kept
    first.close()
    second.close()


def test_a_level_cache_keeps_what_it_is_given(tmp_path: Path) -> None:
    cache, level, copy = LevelCache(tmp_path / "cache"), tmp_path / "level.pk3", tmp_path / "copy.pk3"
    level.write_bytes(b"a maze")
    assert not cache.fetch("key", str(copy))
    cache.write("key", str(level))
    assert cache.fetch("key", str(copy))
    assert copy.read_bytes() == b"a maze"
    assert [path.name for path in cache.folder.iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [
        ({}, "at least one action"),
        ({"run": (0, 0, 0, 1)}, "'run' has 4 numbers"),
        ({"leap": (0, 0, 0, 2, 0, 0, 0)}, "'leap' sets MOVE_BACK_FORWARD to 2"),
    ],
)
def test_a_wrong_action_is_named(lab: Any, actions: dict[str, tuple[int, ...]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(actions=actions)


def test_an_action_out_of_range_moves_nothing(lab: Any) -> None:
    env = make().unwrapped
    env.reset(seed=0)
    for action in (-1, 9):
        with pytest.raises(UserError, match="no action of this world"):
            env.step(action)
    env.close()


def test_an_unknown_level_is_named(lab: Any) -> None:
    with pytest.raises(UserError, match="'no_such_level'"):
        make(level="no_such_level")


def test_a_missing_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepmind_lab", None)
    with pytest.raises(UserError, match="build it from source"):
        make()

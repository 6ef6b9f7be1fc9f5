"""Doom-v0 keeps Gymnasium's contract where ViZDoom by itself does not, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.doom import SCENARIOS
from worldmodel.errors import UserError

pytest.importorskip("vizdoom", reason="the extra [doom] is not installed")


def make(scenario: str, **kwargs: Any) -> gymnasium.Env:
    return gymnasium.make("envs:worldmodel/Doom-v0", scenario=scenario, **kwargs)


def play(env: gymnasium.Env, seed: int) -> tuple[np.ndarray, list[float], bool, bool]:
    """One episode of random buttons: frames [T+1, H, W, 3], rewards, and how it ended."""
    rng = np.random.default_rng(seed)
    frames, rewards = [env.reset(seed=seed)[0]], list[float]()
    while True:
        frame, reward, terminated, truncated, _ = env.step(rng.integers(env.action_space.n))
        frames.append(frame)
        rewards.append(float(reward))
        if terminated or truncated:
            return np.stack(frames), rewards, terminated, truncated


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_gymnasiums_checker_has_no_complaint(scenario: str) -> None:
    env = make(scenario, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


def test_a_death_terminates_and_its_last_frame_is_the_last_one_seen() -> None:
    env = make("take_cover")
    frames, rewards, terminated, truncated = play(env, seed=1)
    env.close()
    assert (terminated, truncated) == (True, False)
    np.testing.assert_array_equal(frames[-1], frames[-2])
    assert frames[-1].any()
    assert sum(rewards) > 0


def test_a_time_limit_truncates() -> None:
    env = make("my_way_home", frame_skip=35)  # 2,100 tics: too few to stumble on the way home
    frames, _, terminated, truncated = play(env, seed=1)
    env.close()
    assert (terminated, truncated) == (False, True)
    np.testing.assert_array_equal(frames[-1], frames[-2])


def test_the_same_seed_is_the_same_game_whatever_came_before() -> None:
    env, other = make("take_cover"), make("take_cover")
    first, *_ = play(env, seed=1)
    different, *_ = play(env, seed=2)
    again, *_ = play(env, seed=1)
    elsewhere, *_ = play(other, seed=1)
    env.close()
    other.close()
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, elsewhere)
    assert different.shape != first.shape or (different != first).any()


@pytest.mark.parametrize(
    ("scenario", "meanings"),
    [
        ("take_cover", ["noop", "left", "right"]),
        ("health_gathering_supreme", ["noop", "turn left", "turn right", "forward"]),
        ("my_way_home", ["noop", "turn left", "turn right", "forward", "left", "right"]),
    ],
)
def test_actions_are_named(scenario: str, meanings: list[str]) -> None:
    env = make(scenario)
    assert env.unwrapped.get_action_meanings() == meanings
    assert env.action_space.n == len(meanings)
    env.close()


def test_size_and_frame_skip_are_the_users() -> None:
    env = make("take_cover", height=48, width=64, frame_skip=7)
    assert env.reset(seed=0)[0].shape == env.observation_space.shape == (48, 64, 3)
    assert env.metadata["render_fps"] == 5
    env.close()


def test_an_action_out_of_range_presses_no_button() -> None:
    env = make("take_cover").unwrapped
    env.reset(seed=0)
    for action in (-1, 3):
        with pytest.raises(UserError, match="no action of this world"):
            env.step(action)
    env.close()


def test_an_unknown_scenario_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="'doom_eternal'.*take_cover"):
        make("doom_eternal")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(UserError, match=r"\[doom\]"):
        make("take_cover")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and /dev/shm")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_world_leaves_no_engine_no_shared_memory_and_no_files(tmp_path: Path, sign: signal.Signals) -> None:
    code = """
import gymnasium
env = gymnasium.make("envs:worldmodel/Doom-v0")
env.reset(seed=0)
print("playing", flush=True)
while True:
    if env.step(1)[2]: env.reset()
"""
    before = set(os.listdir("/dev/shm"))
    path = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored where the tests ignore it
    )
    assert process.stdout is not None and process.stdout.readline() == b"playing\n"
    assert engines_of(process.pid)
    process.send_signal(sign)
    process.communicate()
    deadline = time.monotonic() + 30
    while engines_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not engines_of(process.pid)
    assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("ViZDoom")}
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="sends a signal to a group")
def test_an_interrupt_from_the_keyboard_is_not_for_the_engine(tmp_path: Path) -> None:
    code = """
import signal, time, gymnasium
interrupts = []
signal.signal(signal.SIGINT, lambda *_: interrupts.append(True))
env = gymnasium.make("envs:worldmodel/Doom-v0")
env.reset(seed=0)
print("playing", flush=True)
while not interrupts: time.sleep(0.01)
time.sleep(1)
for _ in range(3): env.step(1)
print("still playing", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == b"playing\n"
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert out == b"still playing\n", error


def engines_of(session: int) -> list[int]:
    """The ids of the ViZDoom engines alive that were started in a session."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = read(stat).rpartition(")")  # "pid (name) state parent group session ..."
        if name.endswith("(vizdoom") and rest.split()[0] != "Z" and int(rest.split()[3]) == session:
            alive.append(int(stat.parent.name))
    return alive


def read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
        return ""

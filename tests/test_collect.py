"""`worldmodel collect`: what it records is what happened, and interrupting it in any way costs next to nothing."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from corridor import Corridor
from hypothesis import given, settings
from hypothesis import strategies as st
from kills import kill_at_a_moment

from envs.recording import make_world, open_recording, record, sticky_random
from scripts.collect import Args, main, parse_settings
from tests.command_line import refused, run
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError

CORRIDOR = "corridor:Corridor-v0"
ROOT = Path(__file__).parents[1]


def collect(store: Path | str, episodes: int, **settings: Any) -> EpisodeStore:
    main(Args(**{"env_id": CORRIDOR, "store": str(store), "episodes": episodes, **settings}))
    return EpisodeStore.open(str(store))


def assert_same(one: EpisodeStore, other: EpisodeStore) -> None:
    assert one.provenance == other.provenance
    assert one.lengths.tolist() == other.lengths.tolist()
    for ours, theirs in zip(one, other, strict=True):
        assert ours.seed == theirs.seed
        for field in ("frames", "actions", "rewards", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def test_an_episode_played_again_is_the_one_recorded(tmp_path: Path) -> None:
    store = collect(tmp_path / "store", 6, seed=40, num_envs=2)
    world = Corridor()
    assert [episode.seed for episode in store] == list(range(40, 46))
    for episode in store:
        np.testing.assert_array_equal(episode.frames[0], world.reset(seed=episode.seed)[0])
        for t, action in enumerate(episode.actions):
            frame, reward, terminated, truncated, _ = world.step(
                action - 1
            )  # the world counts from -1, the store from 0
            np.testing.assert_array_equal(episode.frames[t + 1], frame)
            assert (episode.rewards[t], episode.terminated[t], episode.truncated[t]) == (reward, terminated, truncated)
        assert terminated or truncated


def test_the_store_tells_where_it_comes_from(tmp_path: Path) -> None:
    store = collect(tmp_path / "store", 1, seed=3, env_kwargs=("endless=True",), max_steps=7)
    told = store.provenance
    assert (told["env_id"], told["env_kwargs"]) == (CORRIDOR, {"endless": True})
    assert (told["action_meanings"], told["frame_skip"], told["fps"]) == (["back", "stay", "forward"], 2, 5.0)
    assert (told["seed"], store.frame_shape, store.n_actions) == (3, (8, 12, 3), 3)
    assert gymnasium.make(told["env_id"], **told["env_kwargs"]).observation_space.shape == store.frame_shape


def test_a_world_without_an_end_is_truncated(tmp_path: Path) -> None:
    store = collect(tmp_path / "store", 2, env_kwargs=("endless=True",), max_steps=25)
    assert store.lengths.tolist() == [25, 25]
    assert all(episode.truncated[-1] and not episode.terminated.any() for episode in store)


def test_the_number_of_worlds_does_not_change_what_is_recorded(tmp_path: Path) -> None:
    assert_same(collect(tmp_path / "one", 9), collect(tmp_path / "four", 9, num_envs=4))


def test_running_again_goes_on_to_the_number_asked_for(tmp_path: Path) -> None:
    for episodes in (2, 3, 7, 5):
        grown = collect(tmp_path / "grown", episodes)
    assert_same(grown, collect(tmp_path / "at_once", 7))


# --- Interruptions.


def test_a_kill_at_any_moment_leaves_a_store_that_opens_and_goes_on(tmp_path: Path) -> None:
    """Twenty SIGKILLs while one recording grows. The world tells (by touching a file) which episodes it has ended."""
    rng, kept = random.Random(0), 0
    for _ in range(20):
        ended = tmp_path / f"ended{kept}_{time.monotonic_ns()}"
        kill_at_a_moment(collect_and_tell, tmp_path / "store", ended, rng)
        kept_before, kept = kept, episodes_in(tmp_path / "store")
        assert kept >= kept_before + len(ended.read_bytes()) - 1  # each byte is an episode that was played to its end
    grown = collect(tmp_path / "store", kept + 2)
    assert_same(grown, collect(tmp_path / "at_once", kept + 2))


def collect_and_tell(store: Path, ended: Path) -> None:
    step = Corridor.step

    def telling_step(self: Corridor, action: np.int64) -> Any:
        result = step(self, action)
        if result[2] or result[3]:
            with ended.open("ab") as file:
                file.write(b".")
        return result

    Corridor.step = telling_step  # type: ignore[method-assign]
    ended.touch()
    collect(store, 10**6)


def episodes_in(store: Path) -> int:
    """How many episodes can be read, all of them whole; none where a kill came before there was a store."""
    if not (store / "zarr.json").exists():
        return 0
    opened = EpisodeStore.open(str(store))
    assert [episode.seed for episode in opened] == list(range(len(opened)))
    return len(opened)


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.cli", "collect", CORRIDOR, "--store", str(tmp_path / "store")]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [*command, "--episodes", "1000000", "--num-envs", "2"],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has them, and what they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "store" / "seeds").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Run the same command to go on" in output
    assert "Traceback" not in output + errors
    kept = episodes_in(tmp_path / "store")
    assert f"holds {kept} of 1000000" in output
    assert len(collect(tmp_path / "store", kept + 1)) == kept + 1


# --- Mistakes: one sentence, exit code 2, nothing written.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere/None-v0"], "nowhere/None-v0"),
        (["no_such_module:None-v0"], "no_such_module"),
        (["CartPole-v1"], "uint8 RGB"),
        ([CORRIDOR, "--env-kwargs", "channels=1"], "uint8 RGB"),
        ([CORRIDOR, "--env-kwargs", "size=3"], "size"),
        ([CORRIDOR, "--env-kwargs", "endless"], "name=value"),
        ([CORRIDOR, "--agent", "no_such_agent.zip"], "no_such_agent.zip"),
        ([CORRIDOR, "--num-envs", "0"], "--num-envs"),
        ([CORRIDOR, "--seed", 2**63 - 1], "seed of the last episode"),
        ([CORRIDOR, "--stick", "1.5"], "--stick"),
        ([CORRIDOR, "--explore", "0.5"], "--explore would do nothing without an --agent"),
        ([CORRIDOR, "--agent", "anyone", "--forward", "0.5"], "--forward would do nothing where an agent plays"),
        (["worldmodel/DMLab-v0"], "build it from source"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[Any],
    sentence: str,
) -> None:
    monkeypatch.setitem(sys.modules, "deepmind_lab", None)
    store = tmp_path / "store"
    assert sentence in refused("collect", *arguments, "--store", store, "--episodes", 2)
    assert not store.exists()


@pytest.mark.parametrize("settings", [{"seed": 1}, {"env_kwargs": ("actions=2",)}, {"max_steps": 3}, {"stick": 0.5}])
def test_a_store_of_another_recording_is_left_alone(tmp_path: Path, settings: dict[str, Any]) -> None:
    collect(tmp_path / "store", 2)
    with pytest.raises(UserError, match="was recorded with"):
        collect(tmp_path / "store", 4, **settings)
    assert len(EpisodeStore.open(str(tmp_path / "store"))) == 2


def test_a_store_that_was_imported_is_no_recording_to_go_on_with(tmp_path: Path) -> None:
    recorded = collect(tmp_path / "store", 2)
    imported = EpisodeStore.create(
        str(tmp_path / "twice"),
        frame_shape=recorded.frame_shape,
        n_actions=recorded.n_actions,
        provenance={**recorded.provenance, "source": "mirrored:store"},
    )
    imported.append(recorded[0])
    with pytest.raises(UserError, match="imported from mirrored:store"):
        collect(tmp_path / "twice", 4)
    assert len(EpisodeStore.open(str(tmp_path / "twice"))) == 1


def test_settings_that_a_world_cannot_be_made_with_are_one_sentence() -> None:
    def make() -> gymnasium.Env:  # type: ignore[type-arg]
        raise AssertionError("no such maze")

    gymnasium.register("made/Fragile-v0", make)
    with pytest.raises(UserError, match="cannot make the environment made/Fragile-v0: no such maze"):
        make_world("made/Fragile-v0", {})


# --- Who plays.

STEPS = 2000


@settings(max_examples=20)
@given(stick=st.floats(0, 0.9), forward=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_random_play_sticks_and_goes_forward_as_often_as_asked(stick: float, forward: float, seed: int) -> None:
    play = sticky_random(["left", "forward", "right"], stick=stick, forward=forward)(np.random.default_rng(seed))
    frame = np.zeros((1, 1, 3), np.uint8)
    actions = np.array([play(frame) for _ in range(STEPS)])
    chances = np.array([1, 1, 1]) * (1 - forward) / 3 + np.array([0, forward, 0])
    repeats = stick + (1 - stick) * (chances**2).sum()
    # Sticky actions count for (1 + stick) / (1 - stick) times fewer independent ones; six standard deviations.
    deviation = 6 * np.sqrt(0.25 / STEPS)
    assert abs((actions[1:] == actions[:-1]).mean() - repeats) < deviation
    slack = deviation * np.sqrt((1 + stick) / (1 - stick))
    assert np.abs(np.bincount(actions, minlength=3) / STEPS - chances).max() < slack


def test_without_a_forward_action_all_are_as_likely() -> None:
    play = sticky_random(["noop", "left", "right"], stick=0, forward=1)(np.random.default_rng(0))
    counts = Counter(play(np.zeros((1, 1, 3), np.uint8)) for _ in range(3000))
    assert all(abs(count - 1000) < 150 for count in counts.values())


@given(st.dictionaries(st.text("ab_", min_size=1), st.integers() | st.booleans() | st.none() | st.floats(0, 1)))
def test_settings_are_python_values(given_settings: dict[str, Any]) -> None:
    assert parse_settings(tuple(f"{name}={value!r}" for name, value in given_settings.items())) == given_settings


def test_other_settings_are_text() -> None:
    assert parse_settings(("level=contributed/dmlab30/a", "note=x=y")) == {
        "level": "contributed/dmlab30/a",
        "note": "x=y",
    }


def test_a_saved_agent_plays_as_it_would_and_explores_now_and_then(tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="the extra [agents] is not installed")
    from agents.agent import Agent

    class Still(gymnasium.Wrapper):  # SB3 wants actions from 0
        def __init__(self) -> None:
            super().__init__(Corridor())
            self.action_space = gymnasium.spaces.Discrete(3)

    path = str(tmp_path / "agent.zip")
    agent = sb3.PPO("MlpPolicy", Still(), n_steps=8, batch_size=8, device="cpu", seed=0)
    agent.save(path)
    explore = 0.3
    store = collect(tmp_path / "store", 20, agent=path, explore=explore)
    assert store.provenance["policy"] == "agent agent.zip, explore 0.3"
    likes = [agent.predict(episode.frames[:-1], deterministic=True)[0] == episode.actions for episode in store]
    assert abs(np.concatenate(likes).mean() - (1 - explore * 2 / 3)) < 0.08
    assert_same(store, collect(tmp_path / "again", 20, agent=path, explore=explore, num_envs=3))

    with pytest.raises(UserError, match="takes 3 actions .* has 2"):
        collect(tmp_path / "fewer", 1, agent=path, env_kwargs=("actions=2",))
    with pytest.raises(UserError, match=r"trained on frames \[8, 12, 3\]"):
        Agent.load(path).check_fits((84, 84, 3), ["0", "1", "2"])
    for damaged in (Path(path).read_bytes()[:1000], b""):
        (tmp_path / "broken.zip").write_bytes(damaged)
        with pytest.raises(UserError, match="no agent"):
            collect(tmp_path / "none", 1, agent=str(tmp_path / "broken.zip"))
    assert not (tmp_path / "fewer").exists() and not (tmp_path / "none").exists()


def test_doom_is_recorded_by_several_worlds_at_once(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom", reason="the extra [doom] is not installed")
    store = collect(tmp_path / "store", 3, env_id="worldmodel/Doom-v0", num_envs=2, max_steps=20)
    assert store.provenance["action_meanings"] == ["noop", "left", "right"]
    assert store.lengths.tolist() == [20, 20, 20]
    assert len({episode.frames.tobytes() for episode in store}) == 3


class Misnamed(Corridor):
    """Its names are not those of its actions."""

    def __init__(self, names: Any) -> None:
        super().__init__()
        self.names = names

    def get_action_meanings(self) -> Any:
        return self.names


@pytest.mark.parametrize("names", [["left", "right"], [1, 2, 3]])
def test_a_world_that_misnames_its_actions_is_not_recorded(names: Any) -> None:
    gymnasium.register("Misnamed-v0", entry_point=Misnamed, kwargs={"names": names})
    try:
        with pytest.raises(UserError, match="names as many"):
            main(Args("Misnamed-v0", "memory://misnamed", 1))
    finally:
        del gymnasium.registry["Misnamed-v0"]
    assert not EpisodeStore.exists("memory://misnamed")


def test_a_store_without_an_episode_takes_other_settings(tmp_path: Path) -> None:
    world = make_world(CORRIDOR, {})
    empty = open_recording(str(tmp_path / "store"), world, CORRIDOR, {"wrong": 1}, policy="none")
    assert len(empty) == 0
    assert_same(collect(tmp_path / "store", 2), collect(tmp_path / "fresh", 2))
    with pytest.raises(UserError, match="recorded with policy"):
        open_recording(str(tmp_path / "store"), world, CORRIDOR, {}, policy="none")


def test_settings_that_a_store_cannot_keep_are_one_sentence(tmp_path: Path) -> None:
    for value in ("{1,2}", "b'x'"):
        said = refused(
            "collect", CORRIDOR, "--store", tmp_path / "store", "--episodes", 1, "--env-kwargs", f"n={value}"
        )
        assert "JSON" in said
    assert not (tmp_path / "store").exists()


def test_worlds_in_the_current_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = "from corridor import Corridor\nimport gymnasium\ngymnasium.register('Yard-v0', entry_point=Corridor)\n"
    (tmp_path / "yard_of_a_test.py").write_text(world)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    monkeypatch.chdir(tmp_path)
    assert run("collect", "yard_of_a_test:Yard-v0", "--store", "store", "--episodes", 1) == 0


def test_players_are_not_as_lucky_as_their_worlds(tmp_path: Path) -> None:
    """Both draw from a seed; drawing the same numbers, play would depend on what the world drew."""
    played: list[float] = []

    def policy(rng: np.random.Generator) -> Any:
        played.append(rng.random())
        return lambda frame: 0

    assert len(list(record(Corridor, policy, [3], max_steps=2))) == 1
    assert played == [np.random.default_rng([3, 1]).random()] != [gymnasium.utils.seeding.np_random(3)[0].random()]

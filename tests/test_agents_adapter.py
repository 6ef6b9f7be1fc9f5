"""Stable-Baselines3 on Gymnasium's vector environments: nothing is lost between the two."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clocks import Clock, clocks
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from numpy.typing import NDArray
from tiny_world import N_ACTIONS, tiny_world

from envs.imagined import ImaginedEnv
from envs.imagined_vector import ImaginedVectorEnv
from worldmodel.errors import UserError
from worldmodel.world import WorldModel

sb3 = pytest.importorskip("stable_baselines3", reason="the extra [agents] is not installed")

from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.env_checker import check_env  # noqa: E402
from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.policies import ActorCriticPolicy  # noqa: E402
from stable_baselines3.common.vec_env import VecEnv, VecMonitor  # noqa: E402

from agents.caution import SurprisePenalty  # noqa: E402
from agents.policies import policy_settings  # noqa: E402
from agents.vec_env import SB3VecEnv  # noqa: E402

N = 3
SAME_STEP = AutoresetMode.SAME_STEP


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


def dreams(world: WorldModel, **kwargs: Any) -> ImaginedVectorEnv:
    return ImaginedVectorEnv(world, **{"num_envs": N, "obs": "latents", "autoreset_mode": SAME_STEP, **kwargs})


# --- The end of an episode.


def test_what_ended_is_told_apart_from_what_began(world: WorldModel) -> None:
    adapter = SB3VecEnv(dreams(world, horizon=4))
    plain = dreams(world, horizon=4, autoreset_mode=AutoresetMode.DISABLED)
    adapter.seed(5)
    np.testing.assert_array_equal(adapter.reset(), plain.reset(seed=5)[0])
    ended_by = {True: 0, False: 0}
    for step in range(30):
        actions = np.full(N, step % N_ACTIONS)
        observations, rewards, dones, infos = adapter.step(actions)
        last, theirs, terminated, truncated, info = plain.step(actions)
        np.testing.assert_array_equal(rewards, theirs.astype(np.float32))
        np.testing.assert_array_equal(dones, terminated | truncated)
        for i in range(N):
            assert infos[i]["log_prob"] == info["log_prob"][i]  # that of what ended, where it ended
            assert infos[i]["TimeLimit.truncated"] == (truncated[i] and not terminated[i])
            if dones[i]:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], last[i])
                ended_by[bool(terminated[i])] += 1
        if dones.any():
            last, _ = plain.reset(options={"reset_mask": dones})
        np.testing.assert_array_equal(observations, last)
    assert min(ended_by.values()) > 3


def test_infos_of_a_reset_are_kept_apart() -> None:
    adapter = SB3VecEnv(clocks(True, False))
    adapter.reset()
    assert adapter.reset_infos == [{"began": True}, {"began": True}]
    adapter.reset_infos = [{}, {}]
    for time in range(1, Clock.DAY + 1):
        infos = adapter.step(np.zeros(2, np.int64))[3]
        assert [info["time"] for info in infos] == [time, time] and all("began" not in info for info in infos)
    assert adapter.reset_infos == [{"began": True}, {"began": True}]


GAMMA = 0.9
FOREVER = 1 / (1 - GAMMA)  # what 1 a step is worth where nothing ever ends


def value(observations: torch.Tensor) -> torch.Tensor:
    """Right where a day ends, and absurd in the morning, which is what a reset shows."""
    time, over = observations.float().unbind(1)
    return torch.where(time == 0, -1000.0, torch.where(over == 1, 777.0, FOREVER))[:, None]


class KnowsItsEnd(ActorCriticPolicy):
    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> Any:
        actions, _, log_prob = super().forward(obs, deterministic)
        return actions, value(obs), log_prob

    def predict_values(self, obs: torch.Tensor) -> torch.Tensor:
        return value(obs)


def returns(worlds: VecEnv, steps: int) -> NDArray[np.float32]:
    """Those that PPO would learn from, [steps, rows]: sums of what was paid, and the value where it was cut short."""
    learner = PPO(KnowsItsEnd, worlds, n_steps=steps, batch_size=steps, gamma=GAMMA, gae_lambda=1.0, device="cpu")
    learner.train = lambda: None  # type: ignore[method-assign]
    learner.learn(steps * worlds.num_envs)
    found: NDArray[np.float32] = learner.rollout_buffer.returns
    return found


def test_a_learner_counts_on_the_future_where_it_was_cut_short_and_not_where_it_was_over() -> None:
    found = returns(VecMonitor(SB3VecEnv(clocks(True, False))), 2 * Clock.DAY)
    remaining = Clock.DAY - np.arange(2 * Clock.DAY) % Clock.DAY
    np.testing.assert_allclose(found[:, 0], (1 - GAMMA**remaining) / (1 - GAMMA), rtol=1e-4)
    np.testing.assert_allclose(found[:, 1], FOREVER, rtol=1e-4)


def test_an_end_by_both_is_an_end() -> None:
    class Both(Clock):
        def step(self, action: np.int64) -> Any:
            frame, reward, terminated, _, info = super().step(action)
            return frame, reward, terminated, terminated, info

    both = SyncVectorEnv([lambda: Both(True)], autoreset_mode=SAME_STEP)
    np.testing.assert_allclose(returns(SB3VecEnv(both), Clock.DAY)[-1], 1.0)


# --- Gymnasium's side.


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_environments_that_reset_at_another_time_are_refused(world: WorldModel, mode: AutoresetMode) -> None:
    with pytest.raises(UserError, match=f"autoreset_mode=\"SameStep\", not '{mode.value}'.$"):
        SB3VecEnv(dreams(world, autoreset_mode=mode))


def test_actions_count_from_0_wherever_the_worlds_begin() -> None:
    class Echo(Clock):
        def __init__(self) -> None:
            super().__init__(True)
            self.action_space = spaces.Discrete(3, start=-1)

        def step(self, action: np.int64) -> Any:
            return *super().step(action)[:4], {"action": int(action)}

    adapter = SB3VecEnv(SyncVectorEnv([Echo] * 3, autoreset_mode=SAME_STEP))
    assert adapter.action_space == spaces.Discrete(3)
    adapter.reset()
    assert [info["action"] for info in adapter.step(np.arange(3))[3]] == [-1, 0, 1]


def test_attributes_and_methods_of_single_environments_are_those_of_each_row() -> None:
    for adapter in (SB3VecEnv(clocks(True, False)), SB3VecEnv(RecordEpisodeStatistics(clocks(True, False)))):
        assert adapter.get_attr("_over") == [True, False]
        assert adapter.env_method("shout", "ho") == ["ho True", "ho False"]
        assert adapter.env_method("shout", "hey", indices=1) == ["hey False"]
        assert adapter.get_attr("heard") == ["ho", "hey"]  # the other row was not called
        adapter.set_attr("mark", 1)
        adapter.set_attr("mark", 2, indices=[1])
        assert adapter.get_attr("mark") == [1, 2] and adapter.get_attr("mark", 1) == [2]
        assert adapter.env_is_wrapped(Monitor) == [False, False]
    wrapped = SB3VecEnv(SyncVectorEnv([lambda: Clock(True), lambda: Monitor(Clock(True))], autoreset_mode=SAME_STEP))
    assert wrapped.env_is_wrapped(Monitor) == [False, True]


def test_worlds_in_processes_of_their_own_fit_too() -> None:
    clocks = AsyncVectorEnv([lambda: Clock(True), lambda: Clock(False)], autoreset_mode=SAME_STEP)
    adapter = SB3VecEnv(clocks)
    try:
        adapter.seed(0)
        adapter.reset()
        for _ in range(Clock.DAY):
            _, rewards, dones, infos = adapter.step(np.zeros(2, np.int64))
        assert dones.all() and rewards.tolist() == [1.0, 1.0]
        assert [info["TimeLimit.truncated"] for info in infos] == [False, True]
        assert [info["terminal_observation"].tolist() for info in infos] == [[Clock.DAY, 1], [Clock.DAY, 0]]
        assert adapter.env_method("shout", "ho") == ["ho True", "ho False"]
        assert adapter.get_attr("_over", [1]) == [False]
        with pytest.raises(UserError, match="in all rows or in none"):
            adapter.env_method("shout", "ho", indices=0)
    finally:
        adapter.close()


def test_attributes_of_dreams_are_shared_and_found_through_wrappers(world: WorldModel) -> None:
    envs = dreams(world)
    adapter = SB3VecEnv(SurprisePenalty(envs, 0.5))
    assert adapter.get_attr("weight") == [0.5] * N
    assert adapter.get_attr("horizon", [0, 2]) == [300, 300]
    assert adapter.env_method("get_action_meanings", indices=1) == [["left", "right", "stay"]]
    adapter.set_attr("horizon", 7)
    assert envs.horizon == 7
    with pytest.raises(UserError, match="set it for all"):
        adapter.set_attr("horizon", 8, indices=0)
    assert adapter.env_is_wrapped(Monitor) == [False] * N
    with pytest.raises(AttributeError, match="no_such"):
        adapter.get_attr("no_such")


def test_options_reach_a_reset_once(world: WorldModel) -> None:
    adapter = SB3VecEnv(dreams(world, obs="pixels"))
    frames = np.zeros((N, 1, *world.frame_shape), np.uint8)
    adapter.set_options({"frames": frames})
    given = adapter.reset()
    assert (given == given[0]).all()
    adapter.seed(0)
    assert not np.array_equal(adapter.reset(), given)
    adapter.set_options([{"frames": frames}, {}, {}])
    with pytest.raises(UserError, match="same options"):
        adapter.reset()


def test_frames_are_rendered(world: WorldModel) -> None:
    adapter = SB3VecEnv(dreams(world, render_mode="rgb_array"))
    adapter.reset()
    assert adapter.render_mode == "rgb_array"
    assert [image.shape for image in adapter.get_images()] == [world.frame_shape] * N
    assert list(SB3VecEnv(dreams(world)).get_images()) == [None] * N


# --- Stable-Baselines3's side.


@pytest.mark.parametrize("obs", ["pixels", "latents", "history"])
def test_a_single_dream_passes_its_check(world: WorldModel, obs: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*image.*")  # latents are none, and need no images' bounds
        check_env(ImaginedEnv(world, obs=obs, horizon=5))


@pytest.mark.parametrize("obs", ["pixels", "latents", "history"])
def test_ppo_learns_is_evaluated_is_saved_and_goes_on(world: WorldModel, obs: str, tmp_path: Path) -> None:
    def worlds() -> VecEnv:
        return VecMonitor(SB3VecEnv(dreams(world, obs=obs, horizon=4)))

    envs = dreams(world, obs=obs)
    settings = policy_settings(envs.single_observation_space, world)
    learner = PPO("MlpPolicy", worlds(), n_steps=8, batch_size=12, policy_kwargs=settings, seed=0, device="cpu")
    learner.learn(2 * 8 * N)
    episodes = learner.ep_info_buffer
    assert episodes and all(1 <= episode["l"] <= 4 for episode in episodes)
    assert np.isfinite(evaluate_policy(learner, worlds(), n_eval_episodes=4)[0])

    learner.save(tmp_path / "agent")
    again = PPO.load(tmp_path / "agent", env=worlds(), device="cpu")
    seen, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(*(agent.predict(seen, deterministic=True)[0] for agent in (learner, again)))
    before = [parameter.clone() for parameter in again.policy.parameters()]
    again.learn(8 * N, reset_num_timesteps=False)
    assert again.num_timesteps == 3 * 8 * N
    assert any(not torch.equal(*both) for both in zip(before, again.policy.parameters(), strict=True))
